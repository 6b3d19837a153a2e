"""The optimizer's step and all that belongs to it: rates, clipping, gates that wait, averages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medt.models.attention import AxialAttention
from medt.training.precision import Precision
from medt.training.settings import TrainerSettings
from medt.training.state import Row

# Of PyTorch's optimizers, as large as the weight that they belong to.
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg")
GATE_NAMES = ("qr", "kr", "sv", "sve")


class Optimization:
    """Steps an optimizer over a model's gradients.

    Args:
        model: whose gradients they are.
        optimizer: over the model's parameters; its learning rates are the schedule's peak.
        schedule: factor of the learning rates for (step, steps of the run).
        settings: the `trainer` group of the config.
        device: of the model.

    Attributes:
        average: the averaged weights, if asked for.
        gated: the layers with gates, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: Callable[[int, int], float],
        settings: TrainerSettings,
        device: torch.device,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.settings = settings
        self.precision = Precision(settings.precision, settings.tf32, device)
        self._buffers: list[Tensor] = []
        self.peak_rates = [group["lr"] for group in optimizer.param_groups]
        self.average: AveragedModel | None = None
        if settings.ema is not None:
            average = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(model, multi_avg_fn=average)
        self.gated = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, AxialAttention) and module.position == "gated"
        }

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def gradient_norm(self, epoch: int) -> float:
        """The gradient's norm before it is clipped; gates that still wait have no gradient."""
        if epoch <= self.settings.gate_epoch:
            for layer in self.gated.values():
                layer.gates.grad = None
        self.precision.unscale(self.optimizer)
        limit = self.settings.clip_norm
        parameters = list(self.model.parameters())
        return float(clip_grad_norm_(parameters, float("inf") if limit is None else limit))

    def step(self, step: int, steps: int) -> None:
        """Step number `step` of the run's `steps`, on the clipped gradient, which is then gone."""
        factor = self.schedule(step, steps)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * factor
        self.precision.step(self.optimizer)
        self.drop_gradient()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def rescheduled(self, step: int, before: int, after: int) -> list[str]:
        """What another number of steps of the run means for the learning rate after this step."""
        rates = [self.peak_rates[0] * self.schedule(step, max(span, 1)) for span in (before, after)]
        if before == after:
            return []
        return [
            f"the schedule now spans {after} steps instead of {before}: the learning rate goes on "
            f"at {rates[1]:.3g} instead of {rates[0]:.3g}"
        ]

    def skip_step(self) -> None:
        """Leave a step out; running statistics that its batch has spoilt are as they were."""
        self.drop_gradient()
        for buffer, kept in zip(self.model.buffers(), self._buffers, strict=True):
            buffer.copy_(kept)

    def begin_step(self) -> None:
        """Before the first batch of a step: keep the running statistics, if it may be left out."""
        if self.settings.on_nonfinite == "skip":
            self._buffers = [buffer.clone() for buffer in self.model.buffers()]

    def drop_gradient(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def gates(self) -> Row:
        """The value of every gate, by layer."""
        return {
            f"{name}.{gate}": float(value)
            for name, layer in self.gated.items()
            for gate, value in zip(GATE_NAMES, layer.gates.detach(), strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, values: Mapping[str, Any], same_optimizer: bool = True) -> None:
        """Take over a state but for the optimizer's settings; of another one's nothing at all."""
        if same_optimizer:
            self._check_state(values["optimizer"])
            settings = [
                {key: value for key, value in group.items() if key != "params"}
                for group in self.optimizer.param_groups
            ]
            self.optimizer.load_state_dict(values["optimizer"])
            for group, own in zip(self.optimizer.param_groups, settings, strict=True):
                group |= own
        self.precision.load_state_dict(values["precision"])
        if self.average is not None:
            self.average.load_state_dict(values["average"])

    def _check_state(self, state: Mapping[str, Any]) -> None:
        """Raises a ValueError where a moment is not of its weight's shape, or not a number."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for index, moments in state["state"].items():
            for name, value in moments.items():
                if not isinstance(value, Tensor):
                    continue
                if name in MOMENTS and value.shape != parameters[index].shape:
                    raise ValueError(f"{name} of weight {index} is {tuple(value.shape)}")
                if not value.isfinite().all():
                    raise ValueError(f"{name} of weight {index} holds NaN or infinite values")
