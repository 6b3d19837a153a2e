"""From an image to class probabilities and class ids, at the image's own size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medt.checkpoint import Checkpoint, load_checkpoint
from medt.data.layout import SegmentationClass
from medt.data.preprocessing import Preprocessing, source_name
from medt.errors import UserError
from medt.inference.averaging import Ensemble, FlipsAndTurns, NotFiniteError, check_finite
from medt.inference.banding import ROWS, resized_columns, resized_rows, window_bands
from medt.inference.instances import NO_RULE, InstanceRule, parting_rule

Image = str | Path | NDArray[Any]

# What a network that was trained on resized images, or on crops, does with an image.
MODES = {"resize": "resize", "crop": "sliding_window"}
OVERLAP = 0.5  # of neighbouring windows, as in nnU-Net (Isensee et al. 2021, Nature Methods 18)
WINDOWS = 8


class Maps(NamedTuple):
    """What a network says of each pixel of an image, or of a band of it.

    Attributes:
        probabilities: (classes, H, W), 0..1.
        depths: (H, W), 0..1: how deep within its object, of a network that was trained to part
            objects; else None. It means something in the foreground only.
    """

    probabilities: NDArray[np.float32]
    depths: NDArray[np.float32] | None


class Predictor:
    """A network with the preprocessing it was trained with and the names of its classes.

    Args:
        model: maps float32 (N, C, H, W) to logits (N, classes, H, W), with one channel more where
            it was trained to part objects; it is moved to ``device`` and put into evaluation mode.
        preprocessing: from an image to the network's input.
        classes: in the order of the logits' channels, background first.
        device: such as "cpu" or "cuda:0".
        name: of the network, for errors: its checkpoint.
        objects: what its further channel is, see `medt.data.objects.ObjectTarget`; None where it
            has none.
        object_area: pixels of a typical object, where it was trained to part them and this is
            known.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        classes: Sequence[SegmentationClass],
        device: str | torch.device = "cpu",
        name: str = "the network",
        objects: str | None = None,
        object_area: int | None = None,
    ) -> None:
        self.objects = objects
        self.object_area = object_area
        self.name = name
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.preprocessing = preprocessing
        self.classes = tuple(classes)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str] | Sequence[str | PathLike[str]],
        device: str | torch.device = "cpu",
        allow: str | Sequence[str] = (),
        mode: str | None = None,
        tta: bool = False,
    ) -> Predictor:
        """Build the predictor that checkpoints describe; nothing but the files is needed.

        Args:
            path: a checkpoint file, or several whose networks' probabilities are averaged.
            device: where the networks shall run.
            allow: full names of classes outside ``medt.models`` that the files may build.
            mode: "resize" or "sliding_window"; None does what the network was trained for.
            tta: whether to average over flips and quarter turns, too.

        Raises:
            UserError: a file is missing or damaged, names a class that is not allowed, or does not
                fit the others; an unknown mode.
        """
        paths = [path] if isinstance(path, (str, PathLike)) else path
        return cls.from_checkpoints(
            [load_checkpoint(one, allow=allow) for one in paths], device, mode, tta
        )

    @classmethod
    def from_checkpoints(
        cls,
        checkpoints: Sequence[Checkpoint],
        device: str | torch.device = "cpu",
        mode: str | None = None,
        tta: bool = False,
    ) -> Predictor:
        """Build the predictor that loaded checkpoints describe; the rest is as in `load`."""
        if not checkpoints:
            raise UserError("there is no checkpoint", "give checkpoint=FILE, or several: [A,B]")
        first = checkpoints[0]
        preprocessings = [Preprocessing.from_dict(one.preprocessing) for one in checkpoints]
        alone = len(checkpoints) == 1
        model = first.build_model() if alone else _ensemble(checkpoints, preprocessings)
        preprocessing = preprocessings[0]
        if mode is not None:
            if mode not in MODES.values():
                raise UserError(
                    f"mode={mode} is not known", f"choose one of {', '.join(MODES.values())}"
                )
            sampling = next(key for key, value in MODES.items() if value == mode)
            preprocessing = replace(preprocessing, sampling=sampling)
        classes = [SegmentationClass.from_dict(c) for c in first.classes]
        name = first.file if alone else "the ensemble"
        network = FlipsAndTurns(model, len(classes), name) if tta else model
        known = first.objects, first.object_area
        return cls(network, preprocessing, classes, device, name, *known)

    @property
    def averages(self) -> bool:
        """Whether its logits are the logarithm of averaged probabilities."""
        return isinstance(self.model, (Ensemble, FlipsAndTurns))

    @property
    def mode(self) -> str:
        """How an image goes through the network, as its preprocessing says: see `MODES`."""
        return MODES[self.preprocessing.sampling]

    def rule_of(self, settings: Mapping[str, Any]) -> InstanceRule:
        """How objects are found, as the group `postprocess` of a config asks for.

        Its method "auto" is `parting_rule` for a network that was trained to part objects, and
        "none" for others.
        """
        if settings["method"] == "auto":
            return NO_RULE if self.objects is None else parting_rule(self.object_area)
        return InstanceRule(**settings)

    def logits(self, batch: Tensor, windows: int = WINDOWS) -> Tensor:
        """Run the network on what it takes whole, or on windows that slide over larger images.

        Windows have the network's size and overlap by half. Their logits are averaged with weights
        that fall off from a window's centre to its edges like a Gaussian.

        Args:
            batch: preprocessed images, float32 (N, C, H, W).
            windows: so many go through the network at once.

        Returns:
            Float32 (N, classes, H, W) on the predictor's device, with one channel more where there
            are `objects`.

        Raises:
            UserError: the network's channels are not these.
            NotFiniteError: its output holds NaN or infinite values.
        """
        with torch.inference_mode():
            if self.mode == "resize":
                return self._network(batch.to(self.device))
            from monai.inferers.utils import sliding_window_inference

            logits = sliding_window_inference(
                batch.to(self.device),
                self.preprocessing.image_size,
                windows,
                self._network,
                overlap=OVERLAP,
                mode="gaussian",
            )
        assert isinstance(logits, Tensor)  # as the network returns
        return logits

    def depths(self, logits: Tensor) -> Tensor | None:
        """What the further channel of logits (classes + 1, H, W) says; None where there is none."""
        if self.objects is None:
            return None
        said = logits[-1].sigmoid()
        return 1 - said if self.objects == "borders" else said

    def at_own_size(self, logits: Tensor, size: Sequence[int]) -> Maps:
        """What is said of one image, at its own size.

        Args:
            logits: as `logits` returns them, of one preprocessed image.
            size: (H, W) of the image.

        Returns:
            The softmax, enlarged bilinearly where the image was resized, or without what was added
            to it; the depths alike.
        """
        with torch.inference_mode():
            planes = self._planes(logits)
            if self.mode == "sliding_window":
                planes = planes[:, : size[0], : size[1]]
            elif tuple(planes.shape[1:]) != tuple(size):
                wide = resized_columns(planes, size[1])
                planes = resized_rows(wide, size[0], 0, size[0])
        return self._maps(planes)

    def _planes(self, logits: Tensor) -> Tensor:
        """Class probabilities and, where there are any, depths: (classes or one more, H, W)."""
        probabilities = logits[: len(self.classes)].softmax(dim=0)
        depths = self.depths(logits)
        return probabilities if depths is None else torch.cat([probabilities, depths[None]])

    def _maps(self, planes: Tensor) -> Maps:
        found: NDArray[np.float32] = planes.cpu().numpy()
        if self.objects is None:
            return Maps(found, None)
        return Maps(found[:-1], found[-1])

    def bands(self, original: NDArray[Any]) -> Iterator[tuple[int, Maps]]:
        """What is said of an image in bands of whole rows, from top to bottom.

        Together they are what one call would give, but only a band's are in memory at a time, and a
        large image's need no more than its width asks for.

        Args:
            original: (H, W, C), what ``Preprocessing.original`` made of an image.

        Yields:
            The band's first row, and its maps.
        """
        height, width = original.shape[:2]
        fitted = self.preprocessing.fit(original)
        if self.mode == "sliding_window":
            for band in window_bands(len(fitted), self.preprocessing.image_size[0], OVERLAP):
                if band.first >= height:  # of what was added to a small image
                    return
                tensor = self.preprocessing.tensor(fitted[band.top : band.bottom])
                logits = self.logits(tensor[None])[0]
                rows = slice(band.first - band.top, min(band.last, height) - band.top)
                yield band.first, self.at_own_size(logits[:, rows], (rows.stop - rows.start, width))
            return
        logits = self.logits(self.preprocessing.tensor(fitted)[None])[0]
        with torch.inference_mode():
            wide = resized_columns(self._planes(logits), width)
            for first in range(0, height, ROWS):
                band_rows = resized_rows(wide, height, first, min(first + ROWS, height))
                yield first, self._maps(band_rows)

    def maps(self, image: Image) -> Maps:
        """Class probabilities at the image's own size, and depths where there are `objects`.

        Args:
            image: a path, or an array that ``Preprocessing.original`` takes: (H, W) or (H, W,
                channels).

        Raises:
            UserError: the image cannot be read, its type or channels do not fit, or the network's
                output for it holds NaN or infinite values.
        """
        original = self.preprocessing.original(image)
        try:
            return self.maps_of(original)
        except NotFiniteError as error:
            raise UserError(f"{source_name(image)}: {error.message}", error.hint) from error

    def maps_of(self, original: NDArray[Any]) -> Maps:
        """`maps` of what `Preprocessing.original` made of an image: (H, W, C)."""
        bands = [band for _, band in self.bands(original)]
        probabilities = np.concatenate([band.probabilities for band in bands], axis=1)
        depths = [band.depths for band in bands if band.depths is not None]
        return Maps(probabilities, np.concatenate(depths) if depths else None)

    def probabilities(self, image: Image) -> NDArray[np.float32]:
        """Class probabilities at the image's own size: (classes, H, W), 0..1, with sum 1 over the
        classes up to rounding.

        Arguments and errors are those of `maps`.
        """
        return self.maps(image).probabilities

    def predict(self, image: Image) -> NDArray[np.uint8]:
        """The most probable class of each pixel: (H, W) ids at the image's own size.

        Arguments and errors are those of `maps`.
        """
        return most_probable(self.probabilities(image))

    def _network(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.model(batch).float()
        wanted = len(self.classes) + (self.objects is not None)
        if logits.shape[1] != wanted:
            more = "" if self.objects is None else f", and one channel for {self.objects}"
            raise UserError(
                f"the network gives {logits.shape[1]} classes, but there are {len(self.classes)}: "
                + ", ".join(c.name for c in self.classes)
                + more,
                "use the dataset's number of classes as the model's",
            )
        check_finite(logits, self.name)
        return logits


def _ensemble(
    checkpoints: Sequence[Checkpoint], preprocessings: Sequence[Preprocessing]
) -> Ensemble:
    classes = [[c["name"] for c in checkpoint.classes] for checkpoint in checkpoints]
    for checkpoint, names in zip(checkpoints, classes, strict=True):
        if names != classes[0]:
            raise UserError(
                f"{checkpoints[0].file} knows the classes {', '.join(classes[0])}, "
                f"{checkpoint.file} knows {', '.join(names)}",
                "an ensemble's networks know the same classes",
            )
        if checkpoint.objects != checkpoints[0].objects:
            raise UserError(
                f"{checkpoints[0].file} was trained with dataset.objects="
                f"{checkpoints[0].objects or 'none'}, {checkpoint.file} with "
                f"{checkpoint.objects or 'none'}",
                "an ensemble's networks give the same outputs",
            )
    files = [checkpoint.file for checkpoint in checkpoints]
    members = [checkpoint.build_model() for checkpoint in checkpoints]
    return Ensemble(members, preprocessings, files, len(classes[0]))


def most_probable(probabilities: NDArray[Any]) -> NDArray[np.uint8]:
    """(classes, H, W), probabilities or logits -> (H, W) class ids; the lower id wins a tie."""
    ids: NDArray[np.uint8] = probabilities.argmax(axis=0).astype(np.uint8)
    return ids
