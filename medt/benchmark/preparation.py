"""How long preparing an archive takes: everything from the packed file to the layout on disk."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Only what --help does not need is imported inside functions: torch takes seconds.
if TYPE_CHECKING:
    from medt.data.layout import Prepared


def measure_preparation(
    archive: Path, rounds: int, advance: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Prepare the GlaS archive `rounds` times, each into an empty folder.

    Raises:
        UserError: whatever is wrong with the archive.
    """
    seconds = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="medt-benchmark-") as folder:
            start = time.perf_counter()
            prepared = prepare_glas(archive, Path(folder))
            seconds.append(time.perf_counter() - start)
        advance()
    return {"dataset": "glas", "cases": sum(prepared.counts.values()), "seconds": seconds}


def prepare_glas(archive: Path, folder: Path) -> Prepared:
    """Prepare the GlaS archive in `folder`/glas, with the committed splits as `folder`/glas.csv."""
    from medt.data.open import PUBLISHED
    from medt.data.published.dataset import prepare
    from medt.shipped import shipped

    splits_file = folder / "glas.csv"
    shutil.copy(shipped("splits") / "glas.csv", splits_file)
    return prepare(PUBLISHED["glas"], archive, folder / "glas", splits_file)


def preparation_line(preparation: dict[str, Any]) -> str:
    """For the end of the report."""
    seconds = sorted(preparation["seconds"])[len(preparation["seconds"]) // 2]
    return (
        f"preparing the {preparation['cases']} cases of {preparation['dataset']} takes "
        f"{seconds:.1f} s"
    )
