"""Mixed precision: what is computed in 16 bits, and how its gradients survive."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast for a forward pass and, for fp16, gradients that are scaled up before they round.

    Args:
        name: fp32, bf16 or fp16.
        tf32: whether NVIDIA GPUs multiply float32 as TensorFloat-32, in the whole process.
        device: where the training runs.
    """

    def __init__(self, name: str, tf32: bool, device: torch.device) -> None:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        self.type = TYPES[name]
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """The context of a forward pass; without effect for fp32."""
        return torch.autocast(self.device.type, self.type, enabled=self.type != torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss, scaled."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring the gradients to their true size, for clipping."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        """The optimizer's step, left out where scaled gradients overflowed."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def tolerates(self, norm: float) -> bool:
        """Whether a gradient's norm is fine: fp16 finds its scale by overflowing now and then."""
        return bool(torch.tensor(norm).isfinite()) or self.scaler.is_enabled()

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self.scaler.load_state_dict(state)
