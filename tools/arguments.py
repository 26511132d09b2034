"""The command line of tools/extract.py as Hydra has to be given it.

Hydra reads values by a grammar of its own, in which most characters that a path can have are no
part of a word, ``a,b`` is a sweep and ``2024.10`` a number. A path is taken as it is typed here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from extract_options import PATHS

from vmb_d2.utils.command_line import at_home

SEVERAL = "input.list"  # takes a list of paths too

_WORD = re.compile(r"(\.{0,2}/)?[A-Za-z_][A-Za-z0-9_/.-]*")
_NO_TEXT = ("null", "true", "false", "on", "off", "yes", "no", "inf", "nan")
_PART = re.compile(r"""\[[^\]]*\]|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]+""")


def for_hydra(arguments: Sequence[str]) -> list[str]:
    """The arguments with quotes around paths, and the home folder in place of ``~`` in them.

    A path that exists is that path. Of others, Hydra's quotes, ``null`` and ``${...}`` keep their
    meaning; in a sweep also commas, and for ``input.list`` lists in brackets.
    """
    sweeping = any(
        word in ("-m", "--multirun") or word.startswith("hydra.mode=") for word in arguments
    )
    return [_with_path(argument, sweeping) for argument in arguments]


def option(key: str, value: str) -> str:
    """``key=value`` for Hydra, whatever characters the string ``value`` has."""
    without_interpolations = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return f"{key}={_quoted(without_interpolations)}"


def _with_path(argument: str, sweeping: bool) -> str:
    name, equals, value = argument.partition("=")
    key = name.lstrip("+")
    if not equals or key not in PATHS:
        return argument
    if os.path.lexists(at_home(value)):
        return option(name, at_home(value))
    if key == SEVERAL and not sweeping and len(_parts(value)) > 1:
        return argument  # Hydra says what it can mean
    parts = _parts(value) if sweeping else [value]
    return f"{name}={','.join(_path(part, key == SEVERAL) for part in parts)}"


def _parts(values: str) -> list[str]:
    """Paths, or lists of them in brackets, with commas between."""
    return [part.strip() for part in _PART.findall(values)]


def _path(text: str, several: bool) -> str:
    """A path that need not exist; or a list of them, where there may be several."""
    if several and text.startswith("[") and text.endswith("]"):
        return f"[{','.join(_path(part, False) for part in _parts(text[1:-1]))}]"
    if text in ("", "null"):
        return text
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = re.sub(rf"\\([\\{text[0]}])", r"\1", text[1:-1])
    return _quoted(at_home(text))


def _quoted(text: str) -> str:
    """What Hydra reads as ``text``, apart from the interpolations in it."""
    if _WORD.fullmatch(text) and text.lower() not in _NO_TEXT:
        return text
    escaped = re.sub(r'(\\*)("|\Z)', lambda m: 2 * m[1] + (r"\"" if m[2] else ""), text)
    return f'"{escaped}"'
