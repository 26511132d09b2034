"""``failures.jsonl``: the images that could not be extracted, and why."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..stores.base import output_errors
from ..utils.files import write_whole

FILE_NAME = "failures.jsonl"


class FailureLog:
    """Images that failed, one JSON object a line: ``path``, ``name``, ``reason``, ``stage``.

    The stage is ``read`` (header, decoding, resizing), ``boxes`` or ``network``.

    Args:
        folder: the output folder, or a shard's.

    Raises OutputError where the file can't be read or written.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / FILE_NAME

    def add(self, path: str, name: str, reason: str, stage: str) -> None:
        """Append an image. The line is written before this returns."""
        line = json.dumps({"path": path, "name": name, "reason": reason, "stage": stage})
        with (
            output_errors(self.path, "can't be written"),
            open(self.path, "a", encoding="ascii") as file,
        ):
            file.write(line + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All lines in order. A line that a killed run left incomplete is left out."""
        try:
            lines = self.path.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error
        entries = []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                entries.append(json.loads(line))
        return entries

    def settle(self, is_done: Callable[[str], bool]) -> None:
        """Keep the last line of each image that isn't done. Without any, the file is removed."""
        last = {e["name"]: e for e in self.read() if not is_done(e["name"])}
        with output_errors(self.path, "can't be written"):
            if last:
                text = "".join(json.dumps(entry) + "\n" for entry in last.values())
                write_whole(self.path, text.encode("ascii"))
            else:
                self.path.unlink(missing_ok=True)
