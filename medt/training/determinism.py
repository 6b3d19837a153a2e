"""Training that repeats to the bit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch


def make_deterministic() -> str:
    """Let PyTorch use deterministic algorithms only, in all of this process.

    https://docs.pytorch.org/docs/stable/notes/randomness.html

    Returns:
        A line about what it costs.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return (
        "deterministic algorithms: on a GPU slower and with more memory, and an operation that has "
        "none is an error; on a CPU new memory is filled, which costs a few percent"
    )


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of PyTorch's generators, for checkpoints."""
    cuda = torch.cuda.get_rng_state_all() if device.type == "cuda" else []
    return {"torch_random": torch.get_rng_state(), "cuda_random": cuda}


def restore_random_states(values: Mapping[str, Any]) -> None:
    """The inverse of `random_states`."""
    torch.set_rng_state(values["torch_random"])
    if values["cuda_random"]:
        torch.cuda.set_rng_state_all(values["cuda_random"])
