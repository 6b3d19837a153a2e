"""The cases that a report shows: worst, median, best, false alarms, as pictures side by side."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from medt.data.dataset import SegmentationDataset
from medt.drawing import IGNORED, Picture, error_map, fill, outlined
from medt.evaluation.case_scores import read_truth
from medt.inference.instances import InstanceRule, find_objects
from medt.inference.predictor import Predictor, most_probable

HEIGHT, WIDTH = 360, 720  # pixels of a picture, at most
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Panel:
    """One case.

    Attributes:
        case: its name.
        rank: such as "worst", "median", "best" or "false alarm".
        dice: of the foreground; None where it has none.
        tiles: caption and picture, the latter as the text of a data: address.
    """

    case: str
    rank: str
    dice: float | None
    tiles: list[tuple[str, str]]


def choose_cases(rows: Sequence[Mapping[str, Any]], each: int) -> list[tuple[int, str]]:
    """The worst, median and best cases by foreground Dice: `each` of them, all of few.

    Then the largest false alarms among the cases that have no Dice, as there is nothing to find.

    Returns:
        Position in `rows` and rank ("worst", "median", "best", "false alarm"), from the worst to
        the best, from the largest false alarm to the smallest.
    """
    dice = {i: row["foreground"]["dice"] for i, row in enumerate(rows)}
    order = sorted((i for i in dice if math.isfinite(dice[i])), key=lambda i: (dice[i], i))
    worst, best = order[:each], order[each:][::-1][:each][::-1]
    between = order[len(worst) : len(order) - len(best)]
    start = max(0, (len(between) - each) // 2)
    median = between[start : start + each]
    areas = {i: rows[i]["predicted_foreground"] for i in dice if not math.isfinite(dice[i])}
    alarms = sorted((i for i in areas if areas[i]), key=lambda i: (-areas[i], i))[:each]
    ranked = (("worst", worst), ("median", median), ("best", best), ("false alarm", alarms))
    return [(index, rank) for rank, chosen in ranked for index in chosen]


def draw_panel(
    predictor: Predictor,
    dataset: SegmentationDataset,
    index: int,
    rank: str,
    dice: float,
    rule: InstanceRule,
) -> Panel:
    """Predict one case of the dataset once more, at its own size, and draw it.

    What the dataset ignores is grey in every tile.

    Raises:
        UserError: a file of the case cannot be read any more.
    """
    case = dataset.cases[index]
    image = predictor.preprocessing.original(case.image)
    truth = read_truth(dataset, case)[0]
    maps = predictor.maps(case.image)
    predicted = find_objects(most_probable(maps.probabilities), rule, maps.depths)[0]
    colors = [c.color for c in predictor.classes]
    rows, columns = truth.shape
    height = max(1, min(HEIGHT, round(rows * WIDTH / columns)))
    scored = np.where(truth == IGNORED, truth, predicted)
    drawn = {
        "truth": fill(truth, colors),
        "prediction": fill(scored, colors),
        "errors": error_map(truth, predicted),
    }
    photo = outlined(image, truth, colors, height)
    tiles = [("image, truth outlined", _address(photo, ".jpg"))]
    tiles += [(name, _address(_scaled(tile, height), ".png")) for name, tile in drawn.items()]
    return Panel(case.name, rank, dice if math.isfinite(dice) else None, tiles)


def _scaled(picture: Picture, height: int) -> Picture:
    size = max(1, round(picture.shape[1] * height / picture.shape[0])), height
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _address(picture: Picture, extension: str) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if extension == ".jpg" else []
    _, encoded = cv2.imencode(extension, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    kind = "jpeg" if extension == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
