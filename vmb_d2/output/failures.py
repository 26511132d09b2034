"""``failures.jsonl``: the images that could not be extracted, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..utils.files import write_whole

FILE_NAME = "failures.jsonl"


class FailureLog:
    """Images that failed, one JSON object a line: ``path``, ``name``, ``reason``, ``stage``.

    A line is on the disk as soon as the image failed. The stage is ``read`` (header, decoding,
    resizing), ``boxes`` or ``network``.

    Args:
        folder: the output folder.

    Raises OutputError where the file can't be written.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / FILE_NAME

    def add(self, path: str, name: str, reason: str, stage: str) -> None:
        """Append one. Raises OutputError."""
        line = json.dumps({"path": path, "name": name, "reason": reason, "stage": stage})
        try:
            with open(self.path, "a", encoding="ascii") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written: {error.strerror}") from error

    def read(self) -> list[dict[str, Any]]:
        """All lines in order; the half of one that a death left behind is left out."""
        try:
            lines = self.path.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error
        entries = []
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(entry, dict) and "name" in entry:
                entries.append(entry)
        return entries

    def settle(self, is_done: Callable[[str], bool]) -> int:
        """Keep the last line of each image that isn't done by now, and no other.

        Returns how many are left. The file goes where none is. Raises OutputError.
        """
        last = {e["name"]: e for e in self.read() if not is_done(e["name"])}
        try:
            if last:
                text = "".join(json.dumps(entry) + "\n" for entry in last.values())
                write_whole(self.path, text.encode("ascii"))
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: can't be written: {error.strerror}") from error
        return len(last)
