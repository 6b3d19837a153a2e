"""A network for other programs: python scripts/export.py checkpoint=FILE format=onnx"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

import medt
from medt.checkpoint import load_checkpoint
from medt.cli.settings import allowed
from medt.export.card import model_card, recorded_scores
from medt.export.formats import FORMATS, export_network
from medt.io.files import write_text
from medt.io.links import check_unlinked
from medt.io.locks import locked
from medt.io.text import shown
from medt.training.run_folder import home_of


def export(cfg: DictConfig) -> int:
    checkpoint = load_checkpoint(cfg.checkpoint, allowed(cfg))
    source = Path(checkpoint.file)
    home = home_of(source)
    if cfg.output is None:
        check_unlinked(home, "export")
    folder = home / "export" if cfg.output is None else Path(cfg.output)
    file = folder / f"{source.stem}{FORMATS[cfg.format][0]}"
    print(f"exporting {checkpoint.describe()}, as {cfg.format}", flush=True)
    scores = recorded_scores(checkpoint, home / "evaluation")
    with locked(folder, "export.py"):
        difference = export_network(checkpoint, file, cfg.format)
        card = file.with_name(f"{file.name}.md")
        facts = model_card(checkpoint, file, difference, scores, medt.__version__)
        write_text(card, facts)
    print(f"largest difference of the logits to the checkpoint's: {difference:.3g}")
    print(f"written to {shown(file)}, with the model card {card.name}")
    return 0
