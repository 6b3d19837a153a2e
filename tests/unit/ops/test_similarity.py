"""The closed-form moments against moments of explicit L x L terms."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medt.ops import PositionTables, similarity_moments

small = st.integers(1, 3)
sizes = st.tuples(small, small, small, st.integers(1, 6), st.integers(1, 5))


def explicit_terms(q, k, tables):
    """q.k, q.Rq and k.Rk of every query and key position: each (N, heads, L, L, M)."""
    terms = [torch.einsum("nhcim,nhcjm->nhijm", q, k)]
    if tables is not None:
        terms.append(torch.einsum("nhcim,icj->nhijm", q, tables.query))
        terms.append(torch.einsum("nhcjm,jci->nhijm", k, tables.key))
    return torch.stack(terms)


def two_pass_moments(terms):
    variance, mean = torch.var_mean(terms, dim=(1, 3, 4, 5), correction=0)
    return mean, variance


def inputs(n, heads, d, length, lanes, positions=True):
    q, k = torch.randn(2, n, heads, d, length, lanes, dtype=torch.float64)
    tables = [torch.randn(length, c, length, dtype=torch.float64) for c in (d, d, 2 * d)]
    return q, k, PositionTables(*tables) if positions else None


@given(size=sizes, positions=st.booleans(), offset=st.sampled_from([0.0, 2.0]), seed=small)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equal_the_moments_of_the_explicit_terms(size, positions, offset, seed):
    torch.manual_seed(seed)
    q, k, tables = inputs(*size, positions)
    q = q + offset * torch.randn_like(q[..., :1, :])
    mean, variance = two_pass_moments(explicit_terms(q, k, tables))
    actual = similarity_moments(q, k, tables)
    assert actual[0].shape == (3 if positions else 1, size[1])
    torch.testing.assert_close(actual, (mean, variance), rtol=1e-10, atol=1e-12)


def test_gradients_equal_those_of_the_explicit_terms():
    torch.manual_seed(0)
    q, k, tables = inputs(2, 2, 2, 4, 3)
    leaves = [x.requires_grad_() for x in (q, k, tables.query, tables.key)]
    weights = torch.randn(2, 3, 2, dtype=torch.float64)

    def gradients(moments):
        return torch.autograd.grad((weights * torch.stack(moments)).sum(), leaves)

    expected = gradients(two_pass_moments(explicit_terms(q, k, tables)))
    actual = gradients(similarity_moments(q, k, tables))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def test_float32_stays_accurate_where_a_difference_of_moments_is_not():
    torch.manual_seed(0)
    q, k, tables = inputs(4, 2, 2, 16, 16)
    q, k = (q + 1000).float(), (k + 1000).float()
    tables = PositionTables(*((table + 1000).float() for table in tables))

    doubles = PositionTables(*(table.double() for table in tables))
    mean, variance = two_pass_moments(explicit_terms(q.double(), k.double(), doubles))
    assert ((mean / variance.sqrt()) > 900).all()

    def worst(actual):
        return ((actual - variance) / variance).abs().max()

    terms = explicit_terms(q, k, tables)
    naive = terms.square().mean((1, 3, 4, 5)) - terms.mean((1, 3, 4, 5)).square()
    assert worst(similarity_moments(q, k, tables)[1]) < 1e-4
    assert worst(naive) > 1e-2
