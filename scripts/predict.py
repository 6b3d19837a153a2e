"""Masks for images: python scripts/predict.py checkpoint=FILE input=FILE_OR_FOLDER output=FOLDER"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from command import checkpoint_files, plain, progress, run
from omegaconf import DictConfig

from medt.text import for_error


def main(argv: Sequence[str] | None = None) -> int:
    """Predict as configs/predict.yaml and the overrides in `argv` say."""
    return run(predict, "predict", argv)


def predict(cfg: DictConfig) -> int:
    from medt.inference.device import choose_device
    from medt.inference.folder import find_inputs, predict_folder
    from medt.inference.instances import InstanceRule
    from medt.inference.outputs import Outputs
    from medt.inference.predictor import Predictor

    output = Path(cfg.output)
    predictor = Predictor.load(
        checkpoint_files(cfg), choose_device(cfg.device), cfg.allow or (), cfg.mode, cfg.tta
    )
    inputs = find_inputs(Path(cfg.input), output)
    settings = plain(cfg)
    outputs = Outputs(**{key.name: settings[key.name] for key in fields(Outputs)})
    rule = InstanceRule(**settings["postprocess"])
    with progress("predicting") as advance:
        outcome = predict_folder(predictor, inputs, output, outputs, rule, cfg.overwrite, advance)
    for kind, lines in (("warning", outcome.warnings), ("error", outcome.failures)):
        for line in lines:
            print(f"{kind}: {for_error(line)}", file=sys.stderr)
    print(f"{outcome.written} of {len(inputs)} masks written to {output}")
    if outcome.kept:
        print(f"{outcome.kept} were there already and are kept (overwrite=true replaces them)")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
