"""Predicting in bands of rows: the same as the whole image at once, in less memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers.utils import sliding_window_inference
from torch import nn

from medt.data.layout import SegmentationClass
from medt.data.preprocessing import Preprocessing
from medt.inference import predictor as predicting
from medt.inference.banding import resized_columns, resized_rows, window_bands
from medt.inference.predictor import OVERLAP, Predictor

CLASSES = [SegmentationClass(0, "background", (0, 0, 0)), SegmentationClass(1, "a", (255, 0, 0))]


class Position(nn.Module):
    """Logits that depend on the place in the window, so that every window leaves its mark."""

    def forward(self, x):
        ramp = torch.linspace(0, 3, x.shape[-2])[:, None] + torch.linspace(0, 1, x.shape[-1])
        return torch.stack([x.mean(dim=1) * ramp, x.mean(dim=1).square() + ramp.flip(0)], dim=1)


def make_predictor(sampling, size):
    steps = Preprocessing(size, 3, (0.4,) * 3, (0.3,) * 3, sampling=sampling)
    return Predictor(Position(), steps, CLASSES)


def image(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def windows(height, window, step):
    """Where MONAI's windows start: multiples of the step, the last one moved up to fit."""
    starts = list(range(0, max(height - window, 0) + 1, step))
    return starts if starts[-1] + window == height else [*starts, height - window]


@given(st.integers(1, 40), st.integers(0, 160), st.integers(1, 60), st.floats(0, 0.95))
def test_a_band_sees_the_windows_of_the_whole_image(window, more, rows, overlap):
    height, step = window + more, max(1, int(window * (1 - overlap)))
    bands = list(window_bands(height, window, overlap, rows))
    assert [band.first for band in bands[1:]] == [band.last for band in bands[:-1]]
    assert (bands[0].first, bands[-1].last) == (0, height)
    for band in bands:
        reach = {
            s for s in windows(height, window, step) if s < band.last and s + window > band.first
        }
        own = {band.top + s for s in windows(band.bottom - band.top, window, step)}
        assert reach <= own <= set(windows(height, window, step))


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(3, 150),
    width=st.integers(3, 50),
    window=st.sampled_from([8, 9, 16]),
    rows=st.integers(1, 70),
)
def test_sliding_windows_in_bands_are_monais_on_the_whole(height, width, window, rows):
    predictor = make_predictor("crop", (window, window))
    original = image(height, width)
    tensor = predictor.preprocessing.tensor(predictor.preprocessing.fit(original))
    logits = sliding_window_inference(
        tensor[None], (window, window), 4, Position(), overlap=OVERLAP, mode="gaussian"
    )
    expected = logits[0].softmax(dim=0)[:, :height, :width].numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            predicting, "window_bands", lambda h, w, overlap: window_bands(h, w, overlap, rows)
        )
        found = predictor.probabilities(original)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@given(st.integers(1, 30), st.integers(1, 90), st.integers(1, 40), st.integers(1, 40))
def test_resized_rows_are_those_of_torch(h, height, first, count):
    planes = torch.rand(2, h, 7, generator=torch.Generator().manual_seed(0))
    wide = resized_columns(planes, 11)
    first = min(first, height) - 1
    last = min(first + count, height)
    expected = F.interpolate(planes[None], (height, 11), mode="bilinear", align_corners=False)
    found = resized_rows(wide, height, first, last)
    torch.testing.assert_close(found, expected[0, :, first:last], atol=2e-6, rtol=0)


@pytest.mark.parametrize("sampling", ["resize", "crop"])
def test_bands_together_are_the_probabilities(monkeypatch, sampling):
    predictor = make_predictor(sampling, (16, 16))
    original = image(70, 30)
    whole = predictor.probabilities(original)
    monkeypatch.setattr(predicting, "ROWS", 20)
    monkeypatch.setattr(
        predicting, "window_bands", lambda h, w, overlap: window_bands(h, w, overlap, 20)
    )
    bands = [(first, band.probabilities) for first, band in predictor.bands(original)]
    assert len(bands) >= 4
    assert [first for first, _ in bands][:2] in ([0, 20], [0, 16])
    np.testing.assert_allclose(np.concatenate([b for _, b in bands], axis=1), whole, atol=2e-6)
    logits = predictor.logits(
        predictor.preprocessing.tensor(predictor.preprocessing.fit(original))[None]
    )
    np.testing.assert_allclose(
        predictor.at_own_size(logits[0], (70, 30)).probabilities, whole, atol=2e-6
    )
