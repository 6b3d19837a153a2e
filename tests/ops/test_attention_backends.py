"""The operation with its norms: kernel against reference, the choice of them, registration."""

from __future__ import annotations

import ctypes
import itertools
import logging
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
import train
from conftest import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medt.checkpoint import load_checkpoint
from medt.ops import (
    AttentionParameters,
    AttentionStatistics,
    Moments,
    axial_attention,
    library,
    set_backend,
)
from medt.ops.fused import fused_attention
from medt.ops.reference import reference_attention
from medt.training.run_folder import RunFolder

EPSILON = 1e-5
# What a norm of a constant makes of a rounding error.
CONSTANT = 3e-6 * EPSILON**-0.5
POSITIONS = ("none", "plain", "gated")
needs_kernel = pytest.mark.skipif(
    not library.available(), reason="the fused kernel is not installed"
)
each_position = pytest.mark.parametrize("position", POSITIONS)


def parameters(heads, d, length, position, seed=0, spare=0):
    """Random ones in float64; the tables serve `spare` positions more than `length`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, center=0.0):
        return center + 0.4 * torch.randn(*shape, generator=generator, dtype=torch.float64)

    terms = 1 if position == "none" else 3
    result = AttentionParameters(
        draw(4 * heads * d, center=1),
        draw(4 * heads * d),
        draw(terms, heads, center=1),
        draw(2 * heads * d, center=1),
        draw(2 * heads * d),
    )
    if position != "none":
        result = result._replace(
            position_weight=draw(2 * heads * d, center=1),
            position_bias=draw(2 * heads * d),
            relative=draw(4 * d, 2 * (length + spare) - 1),
        )
    if position == "gated":
        result = result._replace(gates=torch.tensor([0.4, -0.7, 1.3, 0.2]).double())
    return result


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def passes(attention, x, learned, cotangent, dtype, along_width=False):
    """Output, input gradient, gradients by name, and the batch's moments."""
    x = x.to(dtype).detach().clone().requires_grad_()
    learned = learned.map(lambda p: p.to(dtype).detach().clone().requires_grad_())
    out, measured = attention(x, learned, AttentionStatistics(), along_width, EPSILON)
    out.backward(cotangent.to(dtype))
    gradients = {
        name: p.grad for name, p in learned._asdict().items() if p is not None and name != "gates"
    }
    moments = {
        f"{norm}.{name}": value
        for norm, pair in measured._asdict().items()
        if pair is not None
        for name, value in pair._asdict().items()
    }
    gates = None if learned.gates is None else learned.gates.grad
    return out.detach(), x.grad, gradients, moments, gates


def flat(results):
    """Output, input gradient, gradients and moments by name."""
    out, d_x, gradients, moments, _ = results
    return {"output": out, "input": d_x, **gradients, **moments}


def assert_close(actual, expected, tolerance, name="", spare=0.0):
    """Differs by at most `tolerance` of the largest value, `spare` or CONSTANT."""
    allowed = max(tolerance * expected.abs().max().item(), spare, CONSTANT)
    assert (actual.double() - expected).abs().max().item() <= allowed, name


sizes = st.tuples(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 16), st.integers(1, 19), st.integers(1, 19)
)


@needs_kernel
@given(
    size=sizes,
    position=st.sampled_from(POSITIONS),
    along_width=st.booleans(),
    channels_last=st.booleans(),
    spare=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
@example((2, 2, 1, 64, 16), "gated", False, True, 0, 0)
@example((1, 1, 16, 1, 1), "plain", True, False, 0, 0)  # one pixel
@example((2, 8, 2, 17, 33), "gated", True, True, 2, 1)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_the_kernel_computes_what_the_reference_does(
    size, position, along_width, channels_last, spare, seed
):
    n, heads, d, length, others = size
    plane = (others, length) if along_width else (length, others)
    x = random(n, 4 * heads * d, *plane, seed=seed)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    cotangent = random(n, 2 * heads * d, *plane, seed=seed + 1)
    learned = parameters(heads, d, length, position, seed, spare)
    expected = passes(reference_attention, x, learned, cotangent, torch.float64, along_width)
    actual = passes(fused_attention, x, learned, cotangent, torch.float32, along_width)
    plain = passes(reference_attention, x, learned, cotangent, torch.float32, along_width)
    for name, truth in flat(expected).items():
        # Where norms multiply rounding errors (few values, a norm of a constant), the kernel may
        # be as wrong as PyTorch's float32.
        of_plain = (flat(plain)[name].double() - truth).abs().max().item()
        assert_close(flat(actual)[name], truth, 2e-5, name, spare=30 * of_plain)


@needs_kernel
def test_the_gradients_of_the_gates():
    """They all but cancel (the norms divide a gate out), so only the large shapes tell."""
    x, cotangent = random(3, 16, 24, 20), random(3, 8, 24, 20, seed=2)
    learned = parameters(2, 2, 24, "gated")
    learned = learned._replace(gates=1e-2 * learned.gates)  # epsilon counts against such a term
    expected = passes(reference_attention, x, learned, cotangent, torch.float64)[4]
    actual = passes(fused_attention, x, learned, cotangent, torch.float32)[4]
    torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-4)


@needs_kernel
@each_position
def test_equal_logits_attend_evenly(position):
    """Queries and keys that are constant: each key has the same weight, or only its position."""
    x = random(2, 8, 6, 5)
    x[:, :2] = 3  # the one head's q (2) and, below, k (2)
    x[:, 2:4] = -1
    learned = parameters(1, 2, 6, position)
    cotangent = random(2, 4, 6, 5, seed=2)
    expected = passes(reference_attention, x, learned, cotangent, torch.float64)
    actual = passes(fused_attention, x, learned, cotangent, torch.float32)
    assert_close(actual[0], expected[0], 1e-4)
    assert actual[1].isfinite().all()
    assert expected[3]["similarity.variance"][0].abs().max() < 1e-12
    if position == "none":  # every query gets the mean of the values
        assert_close(actual[0][:, :, :1].expand(-1, -1, 6, -1), actual[0].double(), 1e-5)


@needs_kernel
@each_position
def test_logits_of_ten_thousand(position):
    """The norm's weight makes them; then each query has one key, forward and backward."""
    x, cotangent = random(2, 16, 9, 7), random(2, 8, 9, 7, seed=2)
    learned = parameters(2, 2, 9, position)
    learned = learned._replace(similarity_weight=learned.similarity_weight.sign() * 4e3)
    expected = passes(reference_attention, x, learned, cotangent, torch.float64)
    actual = passes(fused_attention, x, learned, cotangent, torch.float32)
    assert_close(actual[0], expected[0], 1e-2)
    assert all(gradient.isfinite().all() for gradient in (actual[1], *actual[2].values()))


@needs_kernel
def test_a_value_that_is_no_number_is_not_hidden():
    learned = parameters(2, 2, 6, "gated").map(torch.Tensor.float)
    x = random(2, 16, 6, 5).float()
    x[0, 0, 2, 3] = torch.nan  # one of a query's
    moments = AttentionStatistics(
        *(Moments(*(part.float() for part in pair)) for pair in running(learned))
    )
    inferred, _ = fused_attention(x, learned, moments, False, EPSILON)
    assert inferred[0, :4, 2, 3].isnan().all()
    assert inferred.isnan().sum() == 4  # of its head, this query's only
    trained, _ = fused_attention(x, learned, AttentionStatistics(), False, EPSILON)
    assert trained[0, :4, 2, 3].isnan().all()


@each_position
@pytest.mark.parametrize("along_width", [False, True])
def test_the_reference_passes_gradcheck(position, along_width):
    learned = parameters(2, 1, 4, position)
    x = random(2, 8, 4, 3) if not along_width else random(2, 8, 3, 4)
    given_ = [p.requires_grad_() for p in learned if p is not None]
    names = [name for name, p in learned._asdict().items() if p is not None]

    def run(x, *values):
        moved = AttentionParameters(**dict(zip(names, values, strict=True)))
        return reference_attention(x, moved, AttentionStatistics(), along_width, EPSILON)[0]

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *given_), atol=1e-6)


def running(learned, seed=5):
    """Moments to be given, for each norm."""

    def pair(weight):
        shape = weight.shape
        return Moments(0.3 * random(*shape, seed=seed), 0.5 + random(*shape, seed=seed + 1) ** 2)

    return AttentionStatistics(
        pair(learned.qkv_weight),
        pair(learned.similarity_weight),
        pair(learned.value_weight),
        None if learned.position_weight is None else pair(learned.position_weight),
    )


@needs_kernel
@each_position
@pytest.mark.parametrize("along_width", [False, True])
def test_inference_with_given_moments(position, along_width):
    learned = parameters(2, 3, 21, position)
    x = random(2, 24, 21, 21)
    moments = running(learned)
    expected, _ = reference_attention(x, learned, moments, along_width, EPSILON)
    as_float = AttentionStatistics(
        *(pair and Moments(*(part.float() for part in pair)) for pair in moments)
    )
    actual, measured = fused_attention(
        x.float(), learned.map(torch.Tensor.float), as_float, along_width, EPSILON
    )
    assert_close(actual, expected, 1e-5)
    assert measured == AttentionStatistics()


class TestChoice:
    x = random(2, 16, 6, 5).float()

    def learned(self, position="gated"):
        return parameters(2, 2, 6, position).map(torch.Tensor.float)

    def ran(self, *arguments):
        """What `axial_attention` chose."""
        with (
            mock.patch("medt.ops.fused.fused_attention", return_value="fused"),
            mock.patch("medt.ops.axial_attention.reference_attention", return_value="torch"),
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
        with mock.patch.object(library, "_library", return_value=None):
            assert self.ran(self.x, self.learned()) == "torch"
            with pytest.raises(RuntimeError, match="not installed"):
                set_backend("fused")

    def test_the_absence_is_logged_once(self, caplog):
        library._library.cache_clear()
        with (
            mock.patch.object(library, "EXTENSION_SUFFIXES", [".absent"]),
            caplog.at_level(logging.INFO),
        ):
            assert not library.available()
            assert not library.available()
        library._library.cache_clear()
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


def digest(threads):
    """Everything a forward and backward pass computes, as bytes; without autograd, which refuses
    to run in a forked process."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    results = []
    for position, along_width in itertools.product(POSITIONS, (False, True)):
        x, cotangent = random(3, 32, 13, 11).float(), random(3, 16, 13, 11, seed=2).float()
        learned = parameters(4, 2, 13, position).map(torch.Tensor.float)
        out, moments, saved = library.forward(x, learned, along_width, EPSILON)
        d_x, gradients = library.backward(
            cotangent, learned, moments, saved, along_width, False, EPSILON
        )
        results += [out, moments, d_x, *(g for g in gradients if g is not None)]
    torch.set_num_threads(before)
    return b"".join(value.numpy().tobytes() for value in results)


def send_digest(threads, pipe):
    pipe.send_bytes(digest(threads))


@needs_kernel
class TestThreads:
    @pytest.mark.parametrize("threads", [2, 3, 8])
    def test_any_number_gives_the_same_bits(self, threads):
        assert digest(threads) == digest(1)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_process_gives_the_same_bits(self):
        expected = digest(2)  # the parent's threads exist, and the child has none of them
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=send_digest, args=(2, sender))
        child.start()
        assert receiver.poll(60), "the forked process hangs"
        assert receiver.recv_bytes() == expected
        child.join(60)
        assert child.exitcode == 0


@needs_kernel
@pytest.mark.parametrize("instruction_set", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_passes(instruction_set):
    """A process of its own, since the choice is made when the kernel is loaded."""
    program = (
        "from medt.ops import library\n"
        "import test_attention_backends as tests\n"
        "print(library.instruction_set())\n"
        "for position in tests.POSITIONS:\n"
        "    tests.test_inference_with_given_moments(position, False)\n"
        "tests.test_the_gradients_of_the_gates()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "MEDT_KERNEL": instruction_set,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    if done.stdout.split()[0] != instruction_set:
        pytest.skip(f"this processor has no {instruction_set}")


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
