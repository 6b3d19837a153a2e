"""The memory of a training step is known before the step is taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medt.losses import CrossEntropyLoss
from medt.models import GatedAxialUNet
from medt.training.memory import (
    MemoryEstimate,
    _peak_of_step,
    available_bytes,
    estimate_memory,
)

CPU = torch.device("cpu")


class Doubling(nn.Module):
    """Two copies of the image as logits; both are needed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.scale * x], dim=1)


def sum_of(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    return logits.sum()


def test_the_peak_counts_what_is_alive_at_once() -> None:
    size = 4 * 64 * 64  # bytes of one plane
    peak = _peak_of_step(Doubling(), sum_of, (1, 64, 64), 2, 1, CPU)
    # The image, its mask (int64), the scaled copy, the two of them joined; little else.
    assert size * (1 + 2 + 1 + 2) <= peak < size * (1 + 2 + 1 + 2 + 2.1)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_estimate_is_what_the_step_takes(batch_size: int) -> None:
    torch.manual_seed(0)
    model, loss = GatedAxialUNet(image_size=32, depths=(1, 1)), CrossEntropyLoss()
    expected = _peak_of_step(model, loss, (3, 32, 32), 2, batch_size, CPU)
    estimate = estimate_memory(model, loss, (3, 32, 32), 2, batch_size, batch_size, 3, CPU)
    kept = 3 * 4 * sum(parameter.numel() for parameter in model.parameters())
    assert estimate.tensors == pytest.approx(expected + kept, rel=0.05)
    assert estimate.needed > estimate.tensors


def test_the_estimate_leaves_network_and_random_numbers_as_they_were() -> None:
    torch.manual_seed(0)
    model = GatedAxialUNet(image_size=32, depths=(1, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    estimate_memory(model, CrossEntropyLoss(), (3, 32, 32), 2, 4, 4, 0, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_cannot_fit_is_an_error_and_what_may_not_is_tight() -> None:
    with pytest.raises(MemoryError, match=r"with batch 7 takes about 3\.0 GB \(1\.0 GB available"):
        MemoryEstimate(2_000_000_000, 3_000_000_000, 1_000_000_000).check("batch 7")
    tight = MemoryEstimate(800_000_000, 1_200_000_000, 1_000_000_000)
    tight.check("batch 7")
    assert tight.is_tight()
    unknown = MemoryEstimate(2_000_000_000, 3_000_000_000, None)
    unknown.check("batch 7")
    assert not unknown.is_tight()
    assert unknown.describe() == "about 3.0 GB"


def test_the_system_tells_what_is_available() -> None:
    available = available_bytes(CPU)
    assert available is None or available > 1_000_000
