"""Values out of a record that may hold anything, as damaged or foreign ones do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def look_up(content: Any, *keys: str) -> Any:
    """A value within nested mappings; None where there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def whole_number(value: Any) -> int | None:
    """``value`` where it can be a number of images, else None."""
    return value if type(value) is int and value >= 0 else None


def strings(value: Any) -> list[str] | None:
    """``value`` where it is a list of strings, else None."""
    is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return value if is_list else None


def counts(values: Any) -> dict[str, int]:
    """``images``, ``done`` and ``failed``; nothing where one of them is missing."""
    found = {key: whole_number(look_up(values, key)) for key in ("images", "done", "failed")}
    return {} if None in found.values() else found


def rate(note: Any) -> float | None:
    """The images a second that a lease's note tells of, if it tells of some."""
    extracted, seconds = whole_number(look_up(note, "extracted")), look_up(note, "seconds")
    if not extracted or type(seconds) not in (int, float):
        return None
    return extracted / seconds if seconds > 0 else None
