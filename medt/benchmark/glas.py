"""How long the GlaS archive takes: preparing it, and evaluating its images with all scores."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medt.data.dataset import SegmentationDataset
from medt.data.layout import Prepared
from medt.data.open import PUBLISHED, open_dataset
from medt.data.published.dataset import prepare
from medt.evaluation.evaluate import evaluate
from medt.inference.predictor import Predictor
from medt.shipped import shipped

CASES = 80  # as many as the official test has


def measure_preparation(archive: Path, rounds: int, advance: Callable[[], None]) -> dict[str, Any]:
    """Prepare the archive `rounds` times, from the packed file to the layout on disk.

    Raises:
        UserError: whatever is wrong with the archive.
    """
    seconds = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="medt-benchmark-") as folder:
            start = time.perf_counter()
            prepared = _prepare(archive, Path(folder))
            seconds.append(time.perf_counter() - start)
        advance()
    return {"dataset": "glas", "cases": sum(prepared.counts.values()), "seconds": seconds}


def measure_evaluation(
    archive: Path, checkpoint: Path, advance: Callable[[], None]
) -> dict[str, Any]:
    """Prepare the archive and score its first 80 images once with a checkpoint.

    Raises:
        UserError: whatever is wrong with the archive or the checkpoint.
    """
    predictor = Predictor.load(checkpoint)
    with tempfile.TemporaryDirectory(prefix="medt-benchmark-") as folder:
        root = _prepare(archive, Path(folder)).root
        index = open_dataset(
            {"name": "glas", "root": root, "splits_file": Path(folder) / "glas.csv"}
        )
        dataset = SegmentationDataset(
            index.cases[:CASES], predictor.preprocessing, index.labels, cache_megabytes=0
        )
        start = time.perf_counter()
        evaluation = evaluate(predictor, dataset, detail=True, pixel_size=index.pixel_size)
        seconds = time.perf_counter() - start
    advance()
    return {"dataset": "glas", "cases": len(evaluation.rows), "seconds": seconds}


def _prepare(archive: Path, folder: Path) -> Prepared:
    """Into `folder`/glas, with the committed splits as `folder`/glas.csv."""
    splits_file = folder / "glas.csv"
    shutil.copy(shipped("splits") / "glas.csv", splits_file)
    return prepare(PUBLISHED["glas"], archive, folder / "glas", splits_file)
