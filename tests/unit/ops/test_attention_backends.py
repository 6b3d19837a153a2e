"""Which backend computes the operation, and what PyTorch knows of it."""

from __future__ import annotations

import ctypes
import logging
from unittest import mock

import pytest
import torch
import train
from attention_cases import (
    EPSILON,
    each_position,
    needs_kernel,
    parameters,
    random,
    running,
)
from conftest import tiny

from medt.checkpoint import load_checkpoint
from medt.ops import (
    axial_attention,
    library,
    set_backend,
)
from medt.training.run_folder import RunFolder


class TestChoice:
    x = random(2, 16, 6, 5).float()

    def learned(self, position="gated"):
        return parameters(2, 2, 6, position).map(torch.Tensor.float)

    def ran(self, *arguments):
        """What `axial_attention` chose."""
        stub = {"reference_attention": lambda *_: "torch"}
        with (
            mock.patch("medt.ops.fused.fused_attention", return_value="fused"),
            mock.patch.dict(axial_attention.__globals__, stub),
        ):
            return axial_attention(*arguments)

    @needs_kernel
    def test_auto_takes_the_kernel_for_float32_on_a_cpu(self):
        assert self.ran(self.x, self.learned()) == "fused"

    @needs_kernel
    def test_auto_takes_the_kernel_in_evaluation_without_gradients(self):
        learned = self.learned()
        moments = running(learned)
        assert self.ran(self.x, learned, moments) == "fused"
        assert self.ran(self.x.clone().requires_grad_(), learned, moments) == "torch"
        with torch.no_grad():
            assert self.ran(self.x.clone().requires_grad_(), learned, moments) == "fused"

    def test_other_types_and_half_given_moments_take_the_reference(self):
        learned = self.learned()
        assert self.ran(self.x.double(), learned) == "torch"
        some = running(learned)._replace(qkv=None)
        assert self.ran(self.x, learned, some) == "torch"

    def test_an_empty_input_takes_the_reference(self):
        assert self.ran(self.x[:0], self.learned()) == "torch"

    def test_without_the_kernel_everything_takes_the_reference(self):
        library._loaded.cache_clear()
        with mock.patch.object(library, "FILE", None):
            assert self.ran(self.x, self.learned()) == "torch"
            with pytest.raises(RuntimeError, match="not installed"):
                set_backend("fused")

    def test_the_absence_is_logged_once(self, caplog):
        library._log_absence.cache_clear()
        with mock.patch.object(library, "FILE", None), caplog.at_level(logging.INFO):
            assert not library.available()
            assert not library.available()
        (record,) = caplog.records
        assert "install a C++ compiler" in record.getMessage()

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(ValueError, match="auto, torch, fused"):
            set_backend("cuda")

    @needs_kernel
    def test_the_kernel_demanded_where_it_cannot_run_is_an_error(self):
        set_backend("fused")
        try:
            with pytest.raises(RuntimeError, match="float64"):
                axial_attention(self.x.double(), self.learned())
        finally:
            set_backend("auto")


@needs_kernel
class TestRegistration:
    @each_position
    @pytest.mark.parametrize("size", [(1, 1, 1, 1, 1), (2, 3, 2, 7, 5), (3, 8, 1, 16, 33)])
    def test_the_size_that_is_kept_is_the_kernels(self, size, position):
        n, heads, d, length, others = size
        learned = parameters(heads, d, length, position)
        shape = library._shape((n, 4 * heads * d, length, others), learned, False)
        of_kernel = library._loaded().medt_saved_size(ctypes.byref(shape))
        assert library.saved_size((n, 4 * heads * d, length, others), learned, False) == of_kernel

    @each_position
    def test_passes_the_checks_of_torch_library(self, position):
        x = random(2, 16, 5, 6).float().requires_grad_()
        learned = parameters(2, 2, 5, position).map(lambda p: p.float().requires_grad_())
        checks = ("test_schema", "test_faketensor", "test_autograd_registration")
        operation = torch.ops.medt.axial_attention_training.default
        torch.library.opcheck(operation, (x, *learned, False, EPSILON), test_utils=checks)
        flat = torch.rand(2 * sum(library.moment_sizes(learned)))
        operation = torch.ops.medt.axial_attention_inference.default
        free = learned.map(torch.Tensor.detach)._replace(gates=None)
        torch.library.opcheck(
            operation, (x.detach(), *free, flat, False, EPSILON), test_utils=checks
        )


@needs_kernel
def test_a_second_derivative_is_refused():
    x = random(2, 16, 5, 6).float().requires_grad_()
    learned = parameters(2, 2, 5, "gated").map(torch.Tensor.float)
    out, _ = axial_attention(x, learned)
    (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@needs_kernel
def test_three_epochs_have_the_same_losses(tmp_path):
    losses = {}
    for backend in ("torch", "fused"):
        set_backend(backend)
        run = RunFolder(tmp_path / backend)
        assert train.main(tiny(tmp_path, f"run_dir={run.root}", "trainer.epochs=3")) == 0
        history = load_checkpoint(run.last).training["history"]
        losses[backend] = [row["train_loss"] for row in history]
    set_backend("auto")
    assert len(losses["fused"]) == 3
    assert losses["fused"] == pytest.approx(losses["torch"], abs=1e-3)
    assert losses["fused"] != losses["torch"]
