"""The folder that a run writes into, kept from other runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError, OutputError
from ..utils.lease import Lease, LeaseHeld, describe, remove_dead, require_free
from .shards import Shard, shards_in

LEASE_NAME = "running.json"


@contextlib.contextmanager
def sole_use(folder: str | Path, shard: Shard | None = None) -> Iterator[Lease]:
    """Create the folder where there is none, and hold the lease on it, or on a shard's own folder.

    A whole run has no other beside it. Shards have other shards beside them, of the same cut.

    Raises:
        ConfigError: the folder is cut into another number of shards.
        OutputError: the folder can't be created or written to, or another run writes into it.
    """
    folder = Path(folder)
    own = shard.folder(folder) if shard else folder
    with contextlib.ExitStack() as stack:
        try:
            own.mkdir(parents=True, exist_ok=True)
            lease = stack.enter_context(Lease(own / LEASE_NAME).acquire())
            # After the lease, so that of two that come at the same time one sees the other.
            if shard is None:
                require_free([s.folder(folder) / LEASE_NAME for s in shards_in(folder)])
            else:
                _require_same_count(folder, shard)
                remove_dead(folder / LEASE_NAME)  # or every shard would watch it
        except ConfigError:
            stack.close()
            with contextlib.suppress(OSError):  # it isn't empty
                own.rmdir()
            raise
        except LeaseHeld as error:
            what = f"{shard} of `output_dir`={folder}" if shard else f"`output_dir`={folder}"
            holder = describe(error.holder)
            raise OutputError(f"{what}: another run writes into it: {holder}") from error
        except OSError as error:
            raise OutputError(f"`output_dir`={folder}: {error.strerror}") from error
        yield lease


def _require_same_count(folder: Path, shard: Shard) -> None:
    for other in shards_in(folder):
        if other.source == shard.source and other.count != shard.count and _is_used(folder, other):
            raise ConfigError(
                f"`output_dir`={folder} is cut into {other.count} shards; take "
                f"`shard_count`={other.count}, or another folder",
                field="shard_count",
                value=shard.count,
            )


def _is_used(folder: Path, shard: Shard) -> bool:
    try:
        return any(shard.folder(folder).iterdir())
    except FileNotFoundError:  # its process was refused and has removed it
        return False
