"""The folder that a run writes into: made, checked, and kept from other runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError, OutputError
from ..utils.lease import Lease, LeaseHeld, remove_dead, require_free
from ..utils.owner import describe
from .shards import Shard, shards_in

LEASE_NAME = "running.json"


@contextlib.contextmanager
def sole_use(folder: str | Path, shard: Shard | None = None) -> Iterator[Lease]:
    """Make the folder where it isn't there, and keep others from writing the same.

    That is: from the shard, or, without one, from the whole folder. The lease goes with the
    process, however it ends.

    Raises:
        ConfigError: the folder is cut into another number of shards.
        OutputError: the folder can't be made or written to, or another run has it.
    """
    folder = Path(folder)
    own = shard.folder(folder) if shard else folder
    with contextlib.ExitStack() as stack:
        try:
            own.mkdir(parents=True, exist_ok=True)
            lease = stack.enter_context(Lease(own / LEASE_NAME).acquire())
            # After the lease, so that of two that come at the same time one sees the other.
            if shard is None:
                require_free(other.folder(folder) / LEASE_NAME for other in shards_in(folder))
            else:
                _require_same_count(folder, shard)
                remove_dead(folder / LEASE_NAME)  # or every shard would look for signs of life
        except ConfigError:
            stack.close()
            with contextlib.suppress(OSError):  # it isn't empty
                own.rmdir()
            raise
        except LeaseHeld as error:
            what = f"{shard} of output.dir={folder}" if shard else f"output.dir={folder}"
            holder = describe(error.holder)
            raise OutputError(f"{what}: another run writes into it: {holder}") from error
        except OSError as error:
            raise OutputError(f"output.dir={folder}: {error.strerror}") from error
        yield lease


def _require_same_count(folder: Path, shard: Shard) -> None:
    for other in shards_in(folder):
        if other.source == shard.source and other.count != shard.count and _is_used(folder, other):
            raise ConfigError(
                f"shard.count={shard.count}: output.dir={folder} is cut into {other.count} shards; "
                f"give shard.count={other.count}, or another folder"
            )


def _is_used(folder: Path, shard: Shard) -> bool:
    try:
        return any(shard.folder(folder).iterdir())
    except FileNotFoundError:  # its process was refused and has removed it
        return False
