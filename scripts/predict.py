"""Masks for images: python scripts/predict.py checkpoint=FILE input=FILE_OR_FOLDER output=FOLDER"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from command import checkpoint_files, plain, progress, run
from omegaconf import DictConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Predict as configs/predict.yaml and the overrides in `argv` say."""
    return run(predict, "predict", argv)


def predict(cfg: DictConfig) -> int:
    from medt.inference.device import choose_device
    from medt.inference.folder import find_inputs, mask_file, predict_folder
    from medt.inference.instances import InstanceRule
    from medt.inference.predictor import Predictor

    output = Path(cfg.output)
    predictor = Predictor.load(
        checkpoint_files(cfg), choose_device(cfg.device), cfg.allow or (), cfg.mode, cfg.tta
    )
    inputs = find_inputs(Path(cfg.input))
    kept = 0 if cfg.overwrite else sum(mask_file(output, path).exists() for path in inputs)
    with progress("predicting") as advance:
        failures = predict_folder(
            predictor,
            inputs,
            output,
            plain(cfg)["values"],
            cfg.overlays,
            cfg.probabilities,
            advance,
            cfg.overwrite,
            InstanceRule(**plain(cfg.postprocess)),
            cfg.instances,
        )
    for failure in failures:
        print(f"error: {failure.message}", file=sys.stderr)
    written = len(inputs) - len(failures) - kept
    print(f"{written} of {len(inputs)} masks written to {output}")
    if kept:
        print(f"{kept} were there already and are kept (overwrite=true replaces them)")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
