"""How long preparing an archive takes: everything from the packed file to the layout on disk."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def measure_preparation(
    archive: Path, rounds: int, advance: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Prepare the GlaS archive `rounds` times, each into an empty folder.

    Raises:
        UserError: whatever is wrong with the archive.
    """
    from command import CONFIGS

    from medt.data.sources import PUBLISHED
    from medt.data.sources.published import prepare

    seconds = []
    with tempfile.TemporaryDirectory(prefix="medt-benchmark-") as folder:
        splits_file = Path(folder) / "glas.csv"
        shutil.copy(CONFIGS.parent / "data" / "splits" / "glas.csv", splits_file)
        for number in range(rounds):
            start = time.perf_counter()
            prepared = prepare(
                PUBLISHED["glas"], archive, Path(folder) / str(number) / "glas", splits_file
            )
            seconds.append(time.perf_counter() - start)
            shutil.rmtree(prepared.root)
            advance()
    return {"dataset": "glas", "cases": sum(prepared.counts.values()), "seconds": seconds}


def preparation_line(preparation: dict[str, Any]) -> str:
    """For the end of the report."""
    seconds = sorted(preparation["seconds"])[len(preparation["seconds"]) // 2]
    return (
        f"preparing the {preparation['cases']} cases of {preparation['dataset']} takes "
        f"{seconds:.1f} s"
    )
