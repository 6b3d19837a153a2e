"""What a run's checkpoints and log tell about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Facts:
    """Plain values that the trainer hands on, and does nothing by.

    Attributes:
        name: of the network, in the log.
        model: what the network is built from, see `medt.checkpoint.model_spec`.
        dataset: the settings that the dataset was opened with.
        config: the whole config of the run.
    """

    name: str = "network"
    model: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fold(self) -> str:
        """Which round of a cross-validation it is, in words; empty if it is none."""
        folds = self.dataset.get("folds")
        return f", fold {self.dataset.get('fold') or 0} of {folds}" if folds else ""

    @property
    def optimizer(self) -> tuple[str | None, bool]:
        """What an optimizer's state belongs to, where the config says it.

        The full name of its class, and whether the encoder's weights are a group of their own.
        """
        group = self.config.get("optimizer", {})
        return group.get("_target_"), group.get("encoder_factor", 1) != 1
