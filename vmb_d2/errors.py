"""The errors that a user can cause and mend. Their text is one line, fit to be shown as it is."""


class VMBError(Exception):
    """Base of all errors below."""


class ConfigError(VMBError):
    """A setting that doesn't exist, has a value outside its range, or contradicts another."""


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
