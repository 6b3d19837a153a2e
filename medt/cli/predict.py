"""Masks for images: python scripts/predict.py checkpoint=FILE input=FILE_OR_FOLDER output=FOLDER"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from medt.checkpoint import Checkpoint, load_checkpoint
from medt.cli.screen import progress
from medt.cli.settings import allowed, checkpoint_files, plain
from medt.data.open import pixel_size_of
from medt.errors import UserError
from medt.inference.device import choose_device
from medt.inference.folder import predict_folder
from medt.inference.inputs import find_inputs, find_regions
from medt.inference.outputs import Outputs
from medt.inference.predictor import Predictor
from medt.io.text import for_error
from medt.metrics.pixel_size import PixelSize


def predict(cfg: DictConfig) -> int:
    output = Path(cfg.output)
    device = choose_device(cfg.device)
    checkpoints = [load_checkpoint(file, allowed(cfg)) for file in checkpoint_files(cfg)]
    predictor = Predictor.from_checkpoints(checkpoints, device, cfg.mode, cfg.tta)
    inputs = find_inputs(Path(cfg.input), output, cfg.roi)
    regions = None if cfg.roi is None else find_regions(Path(cfg.roi), inputs)
    pixel_size = chosen_size(plain(cfg)["pixel_size"], checkpoints[0])
    settings = plain(cfg)
    outputs = Outputs(**{key.name: settings[key.name] for key in fields(Outputs)})
    rule = predictor.rule_of(settings["postprocess"])
    print(*(one.describe() for one in checkpoints), sep="\n", flush=True)
    with progress("predicting") as advance:
        how = outputs, rule, cfg.overwrite, advance, regions, pixel_size
        outcome = predict_folder(predictor, inputs, output, *how)
    for kind, lines in (("warning", outcome.warnings), ("error", outcome.failures)):
        for line in lines:
            print(f"{kind}: {for_error(line)}", file=sys.stderr)
    print(f"{outcome.written} of {len(inputs)} masks written to {output}")
    if outcome.kept:
        print(f"{outcome.kept} were there already and are kept (overwrite=true replaces them)")
    return 1 if outcome.failures else 0


def chosen_size(asked: Any, checkpoint: Checkpoint) -> PixelSize:
    """The pixel size asked for; where none is, that of the dataset trained on, which is told.

    Raises:
        UserError: what the checkpoint has stored is none.
    """
    if asked != "auto":
        return PixelSize.of(asked)
    try:
        known = pixel_size_of(checkpoint.dataset)
    except UserError as error:
        raise UserError(f"{checkpoint.file}: {error.message}", "give pixel_size=...") from error
    if known.known:
        name = checkpoint.dataset["name"]
        print(f"pixel size {known}, as of {name}, trained on (pixel_size=px counts in pixels)")
    return known
