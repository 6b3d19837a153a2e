"""The networks as one would first write them, for comparison: the yardstick of benchmark.py.

This is the formulation of the official code: the L x L terms are computed whole, stacked, normed,
added and passed to a softmax, and the local branch runs on one patch after the other. Parameters
carry the official names, so `medt.models.weights.layer_state` leads back to ours.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medt.models import AxialAttention, LocalGlobalNet

NORM_STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
GATES = ("f_qr", "f_kr", "f_sv", "f_sve")


class NaiveAxialAttention(nn.Module):
    """An equal of `layer`, naively written, with its weights.

    Maps (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride). With positions, the
    attended axis must have the layer's full length.

    Raises:
        ValueError: for gates behind the norm, which the official code does not have.
    """

    flat_columns: Tensor
    f_qr: nn.Parameter
    f_kr: nn.Parameter
    f_sv: nn.Parameter
    f_sve: nn.Parameter

    def __init__(self, layer: AxialAttention) -> None:
        super().__init__()
        if not has_naive(layer):
            raise ValueError(f"gate={layer.gate!r}: the naive layer has before_norm only")
        in_channels, out_channels = layer.qkv.in_channels, layer.qkv.out_channels // 2
        self.heads = layer.heads
        self.head_channels = layer.head_channels
        self.length = layer.length
        self.axis = layer.axis
        self.position = layer.position
        terms, outputs = (1, 1) if self.position == "none" else (3, 2)
        self.qkv_transform = nn.Conv1d(in_channels, 2 * out_channels, kernel_size=1, bias=False)
        self.bn_qkv = nn.BatchNorm1d(2 * out_channels)
        self.bn_similarity = nn.BatchNorm2d(terms * self.heads)
        self.bn_output = nn.BatchNorm1d(outputs * out_channels)
        self.pooling = nn.AvgPool2d(layer.stride) if layer.stride > 1 else nn.Identity()
        if self.position != "none":
            self.relative = nn.Parameter(torch.empty_like(layer.relative))
            position = torch.arange(self.length)
            columns = position[:, None] - position[None, :] + self.length - 1
            self.register_buffer("flat_columns", columns.flatten(), persistent=False)
        if self.position == "gated":
            for name in GATES:
                self.register_parameter(name, nn.Parameter(torch.empty(())))
        self.to(layer.qkv.weight)
        self.load_state_dict(naive_state(layer.state_dict()))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2) if self.axis == "height" else x.permute(0, 2, 1, 3)
        n, lanes, channels, length = x.shape
        qkv = self.bn_qkv(self.qkv_transform(x.reshape(n * lanes, channels, length)))
        d = self.head_channels
        by_head = qkv.reshape(n * lanes, self.heads, 4 * d, length)
        q, k, v = torch.split(by_head, [d, d, 2 * d], dim=2)
        terms = self._content(q, k, v) if self.position == "none" else self._terms(q, k, v)
        # (n * lanes, out_channels, terms, length): a norm over the first two, a sum over the third
        normed = self.bn_output(terms.reshape(n * lanes, -1, length))
        out = normed.view(n, lanes, self.heads * 2 * d, -1, length).sum(dim=3)
        out = out.permute(0, 2, 3, 1) if self.axis == "height" else out.permute(0, 2, 1, 3)
        pooled: Tensor = self.pooling(out)
        return pooled

    def _content(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The value term (B, heads, 2d, L) of attention by content only."""
        logits = self.bn_similarity(torch.einsum("bgci,bgcj->bgij", q, k))
        return torch.einsum("bgij,bgcj->bgci", F.softmax(logits, dim=3), v)

    def _terms(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The value and the position term side by side, (B, heads, 2d, 2L)."""
        d, length = self.head_channels, self.length
        tables = self.relative.index_select(1, self.flat_columns).view(4 * d, length, length)
        table_q, table_k, table_v = torch.split(tables, [d, d, 2 * d], dim=0)
        qr = torch.einsum("bgci,cij->bgij", q, table_q)
        kr = torch.einsum("bgci,cij->bgij", k, table_k).transpose(2, 3)
        qk = torch.einsum("bgci,bgcj->bgij", q, k)
        if self.position == "gated":
            qr, kr = qr * self.f_qr, kr * self.f_kr
        normed = self.bn_similarity(torch.cat([qk, qr, kr], dim=1))
        logits = normed.view(-1, 3, self.heads, length, length).sum(dim=1)
        weights = F.softmax(logits, dim=3)
        value = torch.einsum("bgij,bgcj->bgci", weights, v)
        position = torch.einsum("bgij,cij->bgci", weights, table_v)
        if self.position == "gated":
            value, position = value * self.f_sv, position * self.f_sve
        return torch.cat([value, position], dim=3)


class PatchLoop(nn.Module):
    """A two-branch network whose local branch runs on one patch after the other.

    In training mode its norms see one patch position at a time, where ours see all of them: only
    in evaluation mode are the outputs equal.
    """

    def __init__(self, network: LocalGlobalNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        net = self.network
        rows, columns = net.grid
        height, width = x.shape[2] // rows, x.shape[3] // columns
        whole = net.decoder(net.branch(x))
        local = whole.clone()
        for row in range(rows):
            for column in range(columns):
                top, left = row * height, column * width
                patch = (..., slice(top, top + height), slice(left, left + width))
                local[patch] = net.local_decoder(net.local_branch(x[patch]))
        logits: Tensor = net.head(F.relu(net.fuse(whole + local)))
        return logits


def has_naive(layer: AxialAttention) -> bool:
    """Whether the official code has such a layer: with its gates, if any, before the norm."""
    return layer.position != "gated" or layer.gate == "before_norm"


def naive_network(network: nn.Module) -> nn.Module:
    """An equal of a network of ours, naively written: a copy with the same weights."""
    copied = copy.deepcopy(network)
    for name, module in list(copied.named_modules()):
        if isinstance(module, AxialAttention):
            copied.set_submodule(name, NaiveAxialAttention(module))
    if isinstance(copied, LocalGlobalNet):
        copied = PatchLoop(copied)
    # The official code's memory format.
    return copied.to(memory_format=torch.contiguous_format).train(network.training)


def naive_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of an `AxialAttention` under the names of `NaiveAxialAttention`."""
    naive = {"qkv_transform.weight": state["qkv.weight"].squeeze(-1)}
    for name in NORM_STATE:
        similarity, output = state[f"similarity_norm.{name}"], state[f"value_norm.{name}"]
        if similarity.dim() > 0:
            similarity = similarity.flatten()
            if "relative" in state:
                # Channel 2c is the value term of channel c, 2c + 1 its position term.
                output = torch.stack([output, state[f"position_norm.{name}"]], dim=1).flatten()
        naive[f"bn_qkv.{name}"] = state[f"qkv_norm.{name}"]
        naive[f"bn_similarity.{name}"] = similarity
        naive[f"bn_output.{name}"] = output
    if "relative" in state:
        naive["relative"] = state["relative"]
    if "gates" in state:
        naive.update(zip(GATES, state["gates"], strict=True))
    return naive
