"""The kernel against the reference, on any number of threads and any processor."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from attention_cases import (
    EPSILON,
    POSITIONS,
    assert_close,
    each_position,
    flat,
    needs_kernel,
    parameters,
    passes,
    random,
    running,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medt.ops import (
    AttentionParameters,
    AttentionStatistics,
    Moments,
    library,
)
from medt.ops.fused import fused_attention
from medt.ops.reference import reference_attention

pytestmark = pytest.mark.seconds

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
@pytest.mark.parametrize(
    "instruction_set", ["avx2", pytest.param("baseline", marks=pytest.mark.slow), "avx512"]
)
def test_every_instruction_set_passes(instruction_set):
    """A process of its own, since the choice is made when the kernel is loaded."""
    program = (
        "from medt.ops import library\n"
        "import test_fused_kernel as tests\n"
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
