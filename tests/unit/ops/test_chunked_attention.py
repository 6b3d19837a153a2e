"""The operation against a literal reading of its formulas, its gradients and its memory."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medt.ops import PositionTables, position_tables
from medt.ops import chunked_attention as module
from medt.ops.chunked_attention import chunked_attention

small = st.integers(1, 3)
sizes = st.tuples(small, small, small, st.integers(1, 6), st.integers(1, 5))
with_and_without_tables = pytest.mark.parametrize("positions", [False, True], ids=["none", "rel"])


def literal(q, k, v, scales, tables):
    """The formulas of the module's docstring, with every L x L tensor written out."""
    scale = scales[..., None, None, None]  # heads, i, j, m
    logits = scale[0] * torch.einsum("nhcim,nhcjm->nhijm", q, k)
    if tables is not None:
        logits = logits + scale[1] * torch.einsum("nhcim,icj->nhijm", q, tables.query)
        logits = logits + scale[2] * torch.einsum("nhcjm,jci->nhijm", k, tables.key)
    weights = logits.softmax(dim=3)
    value = torch.einsum("nhijm,nhcjm->nhcim", weights, v)
    if tables is None:
        return value, None
    return value, torch.einsum("nhijm,icj->nhcim", weights, tables.value)


def inputs(n, heads, d, length, lanes, positions, dtype=torch.float64):
    """Leaves (q, k, v, scales, the three tables or none); q, k and v are strided views of one."""

    def leaf(*shape):
        return torch.randn(*shape, dtype=dtype).requires_grad_()

    q, k, v = torch.split(
        torch.randn(n, heads, 4 * d, length, lanes, dtype=dtype), [d, d, 2 * d], 2
    )
    content = [x.requires_grad_() for x in (q, k, v)]
    if not positions:
        return [*content, leaf(1, heads)]
    tables = [leaf(length, channels, length) for channels in (d, d, 2 * d)]
    return [*content, leaf(3, heads), *tables]


def run(operation, leaves):
    """The outputs of an operation on leaves, without the missing one."""
    tables = PositionTables(*leaves[4:]) if len(leaves) > 4 else None
    return [out for out in operation(*leaves[:4], tables) if out is not None]


def lanes_a_chunk(lanes, length):
    return mock.patch.object(module, "_CHUNK_ELEMENTS_CPU", lanes * length**2)


@with_and_without_tables
@given(size=sizes, chunk=st.integers(1, 7), seed=st.integers(0, 1000))
@example(size=(2, 2, 2, 5, 1), chunk=3, seed=0)  # a last chunk that is not full
@example(size=(2, 1, 1, 1, 1), chunk=1, seed=0)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_equals_the_formulas_forward_and_backward(positions, size, chunk, seed):
    torch.manual_seed(seed)
    leaves = inputs(*size, positions)
    expected = run(literal, leaves)
    cotangents = [torch.randn_like(out) for out in expected]
    expected_gradients = torch.autograd.grad(expected, leaves, cotangents)
    with lanes_a_chunk(chunk, size[3]):
        actual = run(chunked_attention, leaves)
        gradients = torch.autograd.grad(actual, leaves, cotangents)
    assert len(actual) == (2 if positions else 1)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-11)


@with_and_without_tables
def test_gradients_equal_finite_differences(positions):
    torch.manual_seed(0)
    leaves = inputs(2, 2, 2, 3, 2, positions)
    with lanes_a_chunk(3, length=3):
        assert torch.autograd.gradcheck(lambda *x: tuple(run(chunked_attention, x)), leaves)


class TestMemory:
    def saved(self, length, positions):
        """Element counts of what is saved for backward, and of v."""
        torch.manual_seed(0)
        leaves = inputs(2, 2, 1, length, 32, positions)
        counts = []

        def pack(tensor):
            counts.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(chunked_attention, leaves)
        return counts, leaves[2].numel()

    @with_and_without_tables
    def test_nothing_with_length_x_length_for_each_lane_is_saved(self, positions):
        counts, of_v = self.saved(16, positions)
        assert len(counts) > 0
        assert max(counts) <= of_v

    def test_what_is_saved_grows_with_the_length_and_not_with_its_square(self):
        assert sum(self.saved(32, False)[0]) <= 2 * sum(self.saved(16, False)[0])


class TestExtremeValues:
    @with_and_without_tables
    def test_huge_logits_stay_finite(self, positions):
        torch.manual_seed(0)
        leaves = inputs(2, 2, 2, 8, 4, positions, torch.float32)
        with torch.no_grad():
            leaves[0].mul_(1e4)
            leaves[1].mul_(1e4)
        outputs = run(chunked_attention, leaves)
        gradients = torch.autograd.grad(outputs, leaves, [torch.ones_like(out) for out in outputs])
        assert all(x.isfinite().all() for x in [*outputs, *gradients])

    def test_a_huge_logit_takes_all_the_weight(self):
        q = torch.full((1, 1, 1, 3, 1), 1e4)
        k = torch.tensor([0.0, 1e4, 0.0]).view(1, 1, 1, 3, 1)
        v = torch.arange(6.0).view(1, 1, 2, 3, 1)
        value, _ = chunked_attention(q, k, v, torch.ones(1, 1), None)
        assert value[0, 0, :, :, 0].tolist() == [[1.0] * 3, [4.0] * 3]

    def test_a_large_common_part_of_the_keys_does_not_spoil_the_gradient_of_the_scale(self):
        torch.manual_seed(0)
        q, k, v = (torch.randn(2, 1, c, 16, 8) for c in (1, 1, 2))
        k = k + 1000

        def scale_gradient(operation, dtype):
            scales = torch.full((1, 1), 0.5, dtype=dtype, requires_grad=True)
            value, _ = operation(q.to(dtype), k.to(dtype), v.to(dtype), scales, None)
            return torch.autograd.grad(value.square().sum(), scales)[0].item()

        expected = scale_gradient(literal, torch.float64)
        assert scale_gradient(chunked_attention, torch.float32) == pytest.approx(expected, rel=1e-6)
        assert scale_gradient(literal, torch.float32) != pytest.approx(expected, rel=1e-6)


class TestPositionTables:
    @pytest.mark.parametrize("length", [1, 3, 4])
    def test_columns_are_offsets_from_the_middle_and_rows_are_query_key_value(self, length):
        torch.manual_seed(0)
        d, longest = 2, 4
        relative = torch.randn(4 * d, 2 * longest - 1)
        query, key, value = position_tables(relative, length)
        assert query.shape == key.shape == (length, d, length)
        assert value.shape == (length, 2 * d, length)
        for i in range(length):
            for j in range(length):
                assert torch.equal(query[i, :, j], relative[:d, i - j + longest - 1])
                assert torch.equal(key[j, :, i], relative[d : 2 * d, j - i + longest - 1])
                assert torch.equal(value[i, :, j], relative[2 * d :, i - j + longest - 1])
