"""How long an evaluation of GlaS images takes, with all its scores."""

from __future__ import annotations

import shutil
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
    from command import CONFIGS

    from medt.data.dataset import SegmentationDataset
    from medt.data.layout import open_prepared
    from medt.data.sources import PUBLISHED
    from medt.data.sources.published import prepare
    from medt.evaluation.evaluate import evaluate
    from medt.inference.predictor import Predictor

    predictor = Predictor.load(checkpoint)
    with tempfile.TemporaryDirectory(prefix="medt-benchmark-") as folder:
        splits_file = Path(folder) / "glas.csv"
        shutil.copy(CONFIGS.parent / "data" / "splits" / "glas.csv", splits_file)
        root = Path(folder) / "glas"
        prepare(PUBLISHED["glas"], archive, root, splits_file)
        index = open_prepared(root, splits_file)
        dataset = SegmentationDataset(
            index.cases[:CASES], predictor.preprocessing, index.labels, cache_megabytes=0
        )
        start = time.perf_counter()
        evaluation = evaluate(
            predictor, dataset, detail=True, pixel_size=PUBLISHED["glas"].pixel_size
        )
        seconds = time.perf_counter() - start
    advance()
    return {"dataset": "glas", "cases": len(evaluation.rows), "seconds": seconds}


def evaluation_line(evaluation: dict[str, Any]) -> str:
    """For the end of the report."""
    return (
        f"evaluating {evaluation['cases']} cases of {evaluation['dataset']} with all scores takes "
        f"{evaluation['seconds']:.1f} s"
    )
