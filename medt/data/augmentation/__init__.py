"""Random changes of training images, each a pure function of the image, its mask and a seed.

The only package that imports albumentations 2.0.8. Two of its habits are dealt with: it asks the
package index for updates at import, and ``Compose.set_random_seed`` gives every transform a
generator with the *same* seed, so that two flips always happen together. ``set_random_state``
shares one generator instead.

Masks are only ever resampled by the nearest pixel, and nothing is filled in: beyond an image's edge
lies its mirror image or the edge repeated, in the mask too. So a mask gains no value.
"""

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before any of these imports albumentations

from medt.data.augmentation.base import Augmentation, Deformation, Flip
from medt.data.augmentation.modalities import Grey, Histology, Strong, Ultrasound

__all__ = ["Augmentation", "Deformation", "Flip", "Grey", "Histology", "Strong", "Ultrasound"]
