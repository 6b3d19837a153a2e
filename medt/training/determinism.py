"""Training that repeats to the bit."""

from __future__ import annotations

import os

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
