"""Images whose columns are of the classes in turn, and a network that finds them without fault."""

from __future__ import annotations

import numpy as np
from torch import nn

from medt.data.layout import SegmentationClass
from medt.data.preprocessing import Preprocessing
from medt.inference.folder import predict_folder
from medt.inference.inputs import find_inputs, find_regions
from medt.inference.instances import NO_RULE
from medt.inference.outputs import Outputs
from medt.inference.predictor import Predictor
from medt.metrics.pixel_size import PIXELS

COLORS = [(0, 0, 0), (0, 158, 115), (230, 159, 0)]


class BrightestChannel(nn.Module):
    """Class c where channel c is the brightest."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return 50 * x[:, : self.classes]


def make_predictor(classes, size=(4, 4)):
    steps = Preprocessing(size, 3, (0.0,) * 3, (1.0,) * 3)
    names = [SegmentationClass(i, f"class {i}", COLORS[i]) for i in range(classes)]
    return Predictor(BrightestChannel(classes), steps, names)


def stripes(classes=2, size=(4, 4)):
    """An image whose columns belong to classes 0, 1, ..., and these classes."""
    ids = np.tile(np.arange(size[1]) % classes, (size[0], 1))
    return (255 * np.eye(3)[ids]).astype(np.uint8), ids


def run(
    predictor,
    source,
    output,
    rule=NO_RULE,
    overwrite=False,
    roi=None,
    pixel_size=PIXELS,
    **settings,
):
    """Predict an image or a folder of them."""
    outputs = Outputs(**settings)
    inputs = find_inputs(source, output, roi)
    regions = None if roi is None else find_regions(roi, inputs)
    how = {"regions": regions, "pixel_size": pixel_size}
    return predict_folder(predictor, inputs, output, outputs, rule, overwrite, **how)
