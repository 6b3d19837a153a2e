"""Look for faults in a dataset: python scripts/check_data.py dataset=glas"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from command import plain, print_table, run, shown, terminal_width
from omegaconf import DictConfig
from training_data import check_of, new_preprocessing, training_set

from medt.build import TARGET
from medt.io.text import json_text

# Only what --help does not need is imported inside functions: torch takes seconds.
if TYPE_CHECKING:
    from medt.check import Check
    from medt.drawing import Picture

REPORT, SHEET, PREVIEW = "check.json", "cases.png", "preview.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Check as configs/check_data.yaml and the overrides in `argv` say; 1 if there are errors."""
    return run(check, "check_data", argv)


def check(cfg: DictConfig) -> int:
    from medt.check.report import report
    from medt.check.sheet import draw_sheet
    from medt.data.open import open_dataset
    from medt.evaluation.tables import strict
    from medt.io.files import write_png, write_text
    from medt.io.locks import locked

    output = Path(cfg.output)
    with locked(output, "check_data.py"):
        settings = plain(cfg.dataset)
        index = open_dataset(settings, draws=True)
        found = check_of(settings, index)
        print_check(found)
        write_text(output / REPORT, json_text(strict(report(found))))
        written = [REPORT]
        pictures = {SHEET: draw_sheet(found, cfg.cases)}
        if cfg.preview:
            pictures[PREVIEW] = preview(cfg, found)
        for name, picture in pictures.items():
            if picture is None:
                print(f"{name} is not drawn: it needs cases without errors")
            else:
                write_png(output / name, picture)
                written.append(name)
    print(f"{', '.join(written)} written to {shown(output)}")
    return 1 if found.errors else 0


def preview(cfg: DictConfig, found: Check) -> Picture | None:
    """Training cases as the network would get them; None if none is without errors."""
    from medt.check.sheet import tiles_of
    from medt.data.preview import draw_preview, spread

    config = plain(cfg)
    config["dataset"]["channels"] = found.settings.channels
    whole = {facts.case.name for facts in found.cases if not facts.faults}
    cases = [case for case in found.index.cases if case.split == "train" and case.name in whole]
    cases = spread(cases, cfg.preview_cases)
    if not cases:
        return None
    preprocessing = new_preprocessing(config["dataset"], cases)
    allow = [config["augmentation"][TARGET] or ""]
    dataset = training_set(config, found.index, cases, preprocessing, allow)
    colors = [c.color for c in found.index.classes]
    return draw_preview(dataset, cfg.versions, colors, tiles_of(found))


def print_check(found: Check) -> None:
    from medt.check.report import lines, tables

    counts = ", ".join(f"{split} {count}" for split, count in found.index.counts().items())
    print(f"{found.index.name}: {counts}\n")
    for table in tables(found):
        print_table(table)
        print()
    for text in lines(found, min(max(terminal_width(), 80), 100)):
        print_table(text)
    print(f"{_number(len(found.errors), 'error')}, {_number(len(found.warnings), 'warning')}\n")


def _number(count: int, name: str) -> str:
    return f"{count or 'no'} {name}{'s' * (count != 1)}"


if __name__ == "__main__":
    sys.exit(main())
