"""When a run is saved between its validations."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from medt.errors import UserError


@dataclass
class SaveSchedule:
    """Every so many epochs, or as soon as so many minutes have passed since the last time.

    Attributes:
        epochs: None where minutes count.
        minutes: None where epochs count.
    """

    epochs: int | None
    minutes: float | None
    saved: float = field(default_factory=time.monotonic)

    @classmethod
    def parse(cls, text: object) -> SaveSchedule:
        """Of "5 min", "0.5 min", "2 epochs", or 2 for epochs.

        Raises:
            UserError: it is none of these.
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(epochs?|min|minutes?)?\s*", str(text))
        number = float(match[1]) if match else 0.0
        in_minutes = bool(match and (match[2] or "").startswith("min"))
        if number <= 0 or not (in_minutes or number.is_integer()):
            raise UserError(
                f"trainer.checkpoint_every={text} is out of range",
                "give epochs or minutes: '2 epochs', '10 min'",
            )
        return cls(None, number) if in_minutes else cls(int(number), None)

    def due_in_epoch(self) -> bool:
        """Whether the minutes are over."""
        return self.minutes is not None and time.monotonic() - self.saved >= 60 * self.minutes

    def due_after_epoch(self, epoch: int) -> bool:
        return self.due_in_epoch() or (self.epochs is not None and epoch % self.epochs == 0)

    def restart(self) -> None:
        """Called when the run has been saved."""
        self.saved = time.monotonic()
