"""What a training says while it runs: a bar on a terminal, plain lines elsewhere, a log file."""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from medt.data.dataset import SegmentationDataset
from medt.errors import UserError
from medt.io.links import open_own
from medt.io.terminal import safe_output
from medt.io.text import for_terminal
from medt.training.facts import Facts
from medt.training.state import EpochSums, Row, TrainingState

log = logging.getLogger("medt")


class _OneLine(logging.Formatter):
    """A line a record: line breaks of what it names, such as a network's name, forge no others."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return for_terminal(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Indented, as no line of the log begins."""
        return textwrap.indent(for_terminal(super().formatException(ei), keep="\n"), "    ")


class _ConsoleHandler(logging.Handler):
    """Prints records above a bar that may be shown on the same console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.setFormatter(_OneLine())

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


class _LogFile(logging.FileHandler):
    """A log file whose errors stop the run; logging itself would print each and go on."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))

    def _open(self) -> Any:
        try:
            return open(self.baseFilename, "a", encoding="utf-8", opener=open_own)
        except OSError as error:
            raise UserError(
                f"Cannot write {self.baseFilename}: {error.strerror}",
                "check free space and permissions",
            ) from error

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        raise UserError(
            f"Cannot write {self.baseFilename}: {sys.exc_info()[1]}",
            "check free space and permissions",
        )


@contextmanager
def logging_to(console: Console, file: Path) -> Iterator[None]:
    """Send the package's log to the console, and with times to `file`, appended.

    An error that ends the context goes to the file with its traceback and those of its causes.
    """
    to_file = _LogFile(file)
    handlers = [_ConsoleHandler(console), to_file]
    log.setLevel(logging.INFO)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    except Exception as error:
        fault = (type(error), error, error.__traceback__)
        to_file.handle(log.makeRecord(log.name, logging.ERROR, "", 0, "%s", (error,), fault))
        raise
    finally:
        for handler in handlers:
            log.removeHandler(handler)
        to_file.close()


@contextmanager
def silence() -> Iterator[None]:
    """Say nothing: another process of the same training does."""
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


class EpochBar:
    """The bar of the running epoch; off a terminal it shows nothing."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    @contextmanager
    def epoch(self, description: str, batches: int) -> Iterator[None]:
        """Show a bar of so many batches while the context lasts."""
        with self._progress, safe_output():
            self._task = self._progress.add_task(description, total=batches, state="")
            try:
                yield
            finally:
                self._progress.remove_task(self._task)

    def advance(self, sums: EpochSums, left: int, batch_size: int) -> None:
        """Show what has been measured, and the time that the `left` batches of the run take."""
        rate = sums.batches / sums.seconds
        state = (
            f"loss {sums.mean_loss:.4f}  dice {sums.dice:.4f}  "
            f"{rate * batch_size:.1f} images/s  {duration(left / rate)} left"
        )
        self._progress.update(self._task, completed=sums.batches, state=state)


def run_line(
    facts: Facts,
    parameters: int,
    train_set: SegmentationDataset,
    val_set: SegmentationDataset,
    device: torch.device,
    steps: int,
) -> str:
    """One line about a run: network, cases, device and the steps of an epoch."""
    size = " x ".join(str(n) for n in train_set.preprocessing.image_size)
    crops = "" if train_set.crops is None else f" ({len(train_set)} crops an epoch)"
    return (
        f"{facts.name} ({parameters:,} parameters) at {size} on {device}: "
        f"{len(train_set.cases)} training{crops} and {len(val_set)} validation cases{facts.fold}, "
        f"{steps} steps an epoch"
    )


def epoch_line(row: Row, state: TrainingState, epochs: int, is_best: bool) -> str:
    """One line about an epoch that has ended: its measurements and the time left."""
    left = (epochs - state.epoch) * state.seconds / state.epoch
    parts = [
        f"epoch {state.epoch}/{epochs}",
        f"loss {row['train_loss']:.4f}",
        f"dice {row['train_dice']:.4f}",
    ]
    if "val_dice" in row:
        parts += [f"val loss {row['val_loss']:.4f}", f"val dice {row['val_dice']:.4f}"]
    if "val_false_alarms" in row:
        parts.append(f"false alarms {row['val_false_alarms']:.0%}")
    if "skipped" in row:
        parts.append(f"{row['skipped']:.0f} steps skipped")
    parts.append(f"{row['images_per_second']:.1f} images/s")
    parts.append(f"{duration(left)} left" if not state.finished else "done")
    return "  ".join(parts) + ("  (best)" if is_best else "")


def duration(seconds: float) -> str:
    """Such as 45 s, 12 min 3 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
