"""Random changes of training images, each a pure function of the image, its mask and a seed.

The only package that imports albumentations 2.0.8. Two of its habits are dealt with: it asks the
package index for updates at import, and ``Compose.set_random_seed`` gives every transform a
generator with the *same* seed, so that two flips always happen together. ``set_random_state``
shares one generator instead.

Masks are only ever resampled by the nearest pixel, and beyond an image's edge lies its mirror image
or the edge repeated, in the mask too. So a mask gains no value, but 255 (ignored) where a list of
transforms says ``fill_mask: 255``.
"""

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before any of these imports albumentations

from medt.data.augmentation.pipeline import Pipeline
from medt.data.augmentation.transforms import (
    ColorJitter,
    DepthGain,
    Elastic,
    QuarterTurns,
    Shadow,
    Speckle,
)

__all__ = ["ColorJitter", "DepthGain", "Elastic", "Pipeline", "QuarterTurns", "Shadow", "Speckle"]
