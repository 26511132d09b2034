"""The errors that a user can cause and mend. Their text is one line, fit to be shown as it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_FIELD = re.compile(r"`([a-z_]+)`")


class VMBError(Exception):
    """Base of all errors below.

    Their texts name a parameter of the Python API in backticks, as in "`batch_size`=0: has to be at
    least 1". ``str`` takes the backticks off; a program in which the parameter has another name
    puts that in its place, see :meth:`text`.
    """

    def text(self, names: Mapping[str, str]) -> str:
        """The message, with ``names[field]``, where there is one, for each field."""
        message = super().__str__()
        return _FIELD.sub(lambda match: names.get(match[1], match[1]), message)

    def __str__(self) -> str:
        return self.text({})


class ConfigError(VMBError):
    """A setting that doesn't exist, has a value outside its range, or contradicts another.

    Args:
        reason: what is wrong with the value; or the whole message, where ``field`` isn't given.
        field: the parameter, by its name in the Python API.
        value: the value that it has.
        valid: all that it could be, where these are few.
    """

    def __init__(
        self,
        reason: str = "",
        *,
        field: str | None = None,
        value: object = None,
        valid: Collection[object] = (),
    ):
        if valid:
            choices = f"valid are {', '.join(map(str, valid))}"
            reason = f"{reason}; {choices}" if reason else choices
        super().__init__(reason if field is None else f"`{field}`={value}: {reason}")


class InputError(VMBError):
    """The images asked for can't be listed."""


class ImageReadError(VMBError):
    """One image can't be read; the others can."""


class BoxesError(VMBError):
    """Boxes that were given, of one image or of all, can't be used."""


class CheckpointError(VMBError):
    """A file is no checkpoint, or not one of the model that it should be."""


class DownloadError(VMBError):
    """A file can't be fetched."""


class OutputError(VMBError):
    """Features can't be written."""


class StoreError(VMBError):
    """Stored features can't be read."""


class TooManyFailures(VMBError):
    """So many images failed that something else must be wrong."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its type's name where there is none."""
    lines = str(error).splitlines()
    return lines[0] if lines and lines[0] else type(error).__name__
