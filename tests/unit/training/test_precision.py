"""Mixed precision: what a step in 16 bits does, and how it survives an overflow."""

from __future__ import annotations

import math

import pytest
import torch
import train
from conftest import tiny
from torch import nn

from medt.checkpoint import load_checkpoint
from medt.training.precision import Precision
from medt.training.run_folder import RunFolder

CPU = torch.device("cpu")


def one_step(precision, gradient):
    """A weight of 1 after a step of plain gradient descent with this gradient."""
    weight = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    precision.backward(weight * gradient)
    precision.unscale(optimizer)
    norm = float(weight.grad)
    precision.step(optimizer)
    return weight.item(), norm


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_step_sees_the_true_gradient(name):
    weight, norm = one_step(Precision(name, False, CPU), 0.25)
    assert norm == pytest.approx(0.25)
    assert weight == pytest.approx(0.75)


def test_fp16_leaves_an_overflown_step_out_and_scales_less():
    precision = Precision("fp16", False, CPU)
    scale = precision.state_dict()["scale"]
    weight, norm = one_step(precision, math.inf)
    assert weight == 1
    assert precision.tolerates(norm)
    assert precision.state_dict()["scale"] == scale / 2


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_without_scaling_a_gradient_that_is_not_finite_is_not_tolerated(name):
    assert not Precision(name, False, CPU).tolerates(math.inf)
    assert Precision(name, False, CPU).tolerates(1.0)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_computes_in_that_type(name, dtype):
    with Precision(name, False, CPU).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


def test_tf32_is_what_was_asked_for():
    Precision("fp32", True, CPU)
    assert torch.backends.cuda.matmul.allow_tf32
    Precision("fp32", False, CPU)
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_run_trains_and_goes_on_in_16_bits(name, tmp_path):
    """The losses follow those of float32 to a tenth; the scale belongs to what a run keeps."""
    losses = {}
    for precision in ("fp32", name):
        run = tmp_path / precision
        overrides = tiny(tmp_path, f"trainer.precision={precision}", f"run_dir={run}")
        assert train.main(overrides) == 0
        last = load_checkpoint(RunFolder(run).last)
        losses[precision] = [row["train_loss"] for row in last.training["history"]]
        assert bool(last.training["precision"]) == (precision == "fp16")
    assert losses[name] == pytest.approx(losses["fp32"], rel=0.1)
    assert losses[name] != losses["fp32"]
