"""Moments of the similarity terms q.k, q.Rq and k.Rk in closed form, without any L x L tensor.

A term is a product of two independent factors: for q.k the query and the key position of a lane,
for the position terms the lane and the other position. For vectors x, y with means mu, nu
and covariances A, B, drawn independently, E[x.y] = mu.nu and
Var[x.y] = mu^T B mu + nu^T A nu + tr(A B). All parts are non-negative, so float32 suffices where a
difference of the first two moments would cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medt.ops.tables import PositionTables


def similarity_moments(
    q: Tensor, k: Tensor, tables: PositionTables | None
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each term over batch, lanes, query and key positions.

    Args:
        q, k: (N, heads, d, L, M).
        tables: None without positions.

    Returns:
        Mean and variance, each (terms, heads): q.k and, with positions, q.Rq and k.Rk.
    """
    over_length = [_moments(x.permute(1, 0, 4, 2, 3)) for x in (q, k)]
    terms = [_product_moments(*over_length[0], *over_length[1], pooled=(1, 2))]
    if tables is not None:
        for x, table in ((q, tables.query), (k, tables.key)):
            over_lanes = _moments(x.permute(1, 3, 2, 0, 4).flatten(3))
            terms.append(_product_moments(*over_lanes, *_moments(table), pooled=(1,)))
    means, variances = zip(*terms, strict=True)
    return torch.stack(means), torch.stack(variances)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (..., d) and covariance (..., d, d) of x (..., d, samples) over its samples."""
    mean = x.mean(dim=-1, keepdim=True)
    centred = x - mean
    return mean.squeeze(-1), centred @ centred.transpose(-1, -2) / x.shape[-1]


def _product_moments(
    mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor, pooled: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Mean and variance of x.y, pooled with equal weights over the dimensions `pooled`."""
    mean = (mean_x * mean_y).sum(-1)
    spread = (cov_x * cov_y).sum((-1, -2))
    spread = spread + (mean_x.unsqueeze(-2) @ cov_y @ mean_x.unsqueeze(-1))[..., 0, 0]
    spread = spread + (mean_y.unsqueeze(-2) @ cov_x @ mean_y.unsqueeze(-1))[..., 0, 0]
    between, average = torch.var_mean(mean, dim=pooled, correction=0)
    return average, between + spread.mean(dim=pooled)
