"""An evaluation of two cases and three classes, of which one is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medt.data.layout import Case
from medt.evaluation.case_scores import Detail, score_case
from medt.evaluation.evaluate import Evaluation
from medt.evaluation.parts import USUAL
from medt.evaluation.summary import summarize_cases, summarize_detail
from medt.metrics.pixel import scores_by

SCORES = scores_by("skip")

NAMES = ("background", "gland", "tumour")


def scored(name, group, prediction, truth, names, parts=USUAL):
    paths = Path("image.png"), Path("mask.png")
    case = Case(name, *paths, None, group, "test")
    probabilities = np.eye(len(names), dtype=np.float32)[prediction].transpose(2, 0, 1)
    detail = Detail(probabilities, np.minimum(prediction, 1), None, tolerance=2, parts=parts)
    return score_case(case, prediction, truth, names, SCORES, detail)


def sample_evaluation(names=NAMES, cases=("ä_1", "b"), groups=("patient, 1",) * 2):
    truth = np.array([[0, 1, 1], [0, 1, 0]])
    predictions = np.array([[0, 1, 1], [0, 0, 0]]), truth
    pairs = zip(cases, groups, predictions, strict=True)
    scores = [scored(case, group, p, truth, names) for case, group, p in pairs]
    summary = {
        "protocol": "native",
        "protocol_means": "each case at its own size",
        "splits": ["test"],
        "image_size": [128, 128],
        "postprocess": {"method": "none"},
        **summarize_cases(scores, names, SCORES, "skip"),
        **summarize_detail(scores, names, SCORES, 2, None, USUAL),
    }
    return Evaluation("native", names, [case.row for case in scores], summary)
