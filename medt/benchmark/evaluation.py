"""How long an evaluation of GlaS images takes, with all its scores."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES = 80  # as many as the official test has


def measure_evaluation(
    archive: Path, checkpoint: Path, advance: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Prepare the GlaS archive and score its first 80 images once with a checkpoint.

    Raises:
        UserError: whatever is wrong with the archive or the checkpoint.
    """
    from medt.benchmark.preparation import prepare_glas
    from medt.data.dataset import SegmentationDataset
    from medt.data.open import open_dataset
    from medt.evaluation.evaluate import evaluate
    from medt.inference.predictor import Predictor

    predictor = Predictor.load(checkpoint)
    with tempfile.TemporaryDirectory(prefix="medt-benchmark-") as folder:
        root = prepare_glas(archive, Path(folder)).root
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


def evaluation_line(evaluation: dict[str, Any]) -> str:
    """For the end of the report."""
    return (
        f"evaluating {evaluation['cases']} cases of {evaluation['dataset']} with all scores takes "
        f"{evaluation['seconds']:.1f} s"
    )
