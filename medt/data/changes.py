"""Whether files are still what they were, as far as the file system tells; no content is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Fact = tuple[int, int]  # bytes, and the time of the last change in nanoseconds


@dataclass(frozen=True)
class FileFacts:
    """Size and time of change of files when `of` looked at them; None where there was no file."""

    facts: Mapping[Path, Fact | None] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Iterable[Path]) -> FileFacts:
        """Look at the files now."""
        return cls({path: fact_of(path) for path in files})

    def changed(self) -> list[Path]:
        """The files of which size or time are other ones now, or that came or went."""
        return [path for path, fact in self.facts.items() if fact_of(path) != fact]

    def digest(self) -> str:
        """16 hexadecimal digits for names, sizes and times in seconds; the folders do not count."""
        rows = [
            (path.name, *((fact[0], fact[1] // 10**9) if fact else (-1, -1)))
            for path, fact in self.facts.items()
        ]
        return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()[:16]


def fact_of(path: Path) -> Fact | None:
    """What the file system says of a file now; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
