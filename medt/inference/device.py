"""Where networks run."""

from __future__ import annotations

import re

import torch

from medt.errors import UserError

KNOWN = re.compile(r"cpu|mps|cuda(:[0-9]{1,2})?")


def choose_device(name: str) -> torch.device:
    """The device that `name` asks for; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        UserError: the name is none, or this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not KNOWN.fullmatch(name):  # PyTorch has others, such as meta, which compute nothing
        raise UserError(f"there is no device {name}", "use auto, cpu, cuda, cuda:N or mps")
    device = torch.device(name)
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise UserError(f"this machine offers no device {name} to PyTorch", "use auto or cpu")
    return device
