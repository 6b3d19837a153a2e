"""An evaluation of two cases and three classes, of which one is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medt.data.layout import Case
from medt.evaluation.case_scores import score_case
from medt.evaluation.evaluate import Evaluation
from medt.evaluation.parts import USUAL
from medt.evaluation.summary import summarize_split
from medt.metrics.families import FAMILIES
from medt.metrics.family import How, Masks

NAMES = ("background", "gland", "tumour")


def evaluation_of(cases, truth, names, parts, families=FAMILIES):
    """What certain predictions score; a case is its name, group and prediction."""
    how = How(names)
    families = tuple(one for one in families if one.part in parts and one.suits(how))
    scores = []
    for name, group, prediction in cases:
        case = Case(name, Path("image.png"), Path("mask.png"), None, group, "test")
        probabilities = np.eye(len(names), dtype=np.float32)[prediction].transpose(2, 0, 1)
        masks = Masks(how, prediction, truth, probabilities, np.minimum(prediction, 1))
        scores.append(score_case(case, masks, families))
    summary = {
        "protocol": "native",
        "protocol_means": "each case at its own size",
        "splits": ["test"],
        "image_size": [128, 128],
        "postprocess": {"method": "none"},
        **summarize_split(scores, families, how, detail=True),
    }
    return Evaluation("native", names, [case.row for case in scores], summary, families)


def sample_evaluation(names=NAMES, cases=("ä_1", "b"), groups=("patient, 1",) * 2):
    truth = np.array([[0, 1, 1], [0, 1, 0]])
    predictions = np.array([[0, 1, 1], [0, 0, 0]]), truth
    return evaluation_of(zip(cases, groups, predictions, strict=False), truth, names, USUAL)
