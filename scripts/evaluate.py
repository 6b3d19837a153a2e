"""Score a checkpoint: python scripts/evaluate.py checkpoint=runs/.../best.pt split=test"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from command import checkpoint_files, plain, progress, run, shown
from omegaconf import DictConfig

from medt.errors import UserError

# Only what --help does not need is imported inside functions: torch takes seconds.
if TYPE_CHECKING:
    from medt.data.dataset import SegmentationDataset
    from medt.inference.predictor import Predictor


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate as configs/evaluate.yaml and the overrides in `argv` say."""
    given = list(sys.argv[1:] if argv is None else argv)
    if any(a.startswith("dataset.") for a in given) and not any(
        a.startswith("dataset=") for a in given
    ):
        print("error: dataset.* needs dataset=NAME (such as dataset=glas)", file=sys.stderr)
        return 1
    return run(evaluate, "evaluate", given)


def evaluate(cfg: DictConfig) -> int:
    from rich.console import Console

    from medt.checkpoint import load_checkpoint
    from medt.data.dataset import SegmentationDataset
    from medt.data.sources import open_dataset
    from medt.evaluation.evaluate import evaluate as score
    from medt.evaluation.tables import render, write_evaluation
    from medt.inference.device import choose_device
    from medt.inference.instances import InstanceRule
    from medt.inference.predictor import Predictor

    if cfg.tune and cfg.split != "val":
        raise UserError(
            f"tune=true with split={cfg.split} would choose on other cases than the validation's",
            "give split=val",
        )
    device = choose_device(cfg.device)
    checkpoints = [load_checkpoint(file, cfg.allow or ()) for file in checkpoint_files(cfg)]
    checkpoint = checkpoints[0]  # of an ensemble the first says where results go
    path = Path(checkpoint.file)
    predictor = Predictor.from_checkpoints(checkpoints, device, cfg.mode, cfg.tta)
    settings = checkpoint.dataset if cfg.dataset is None else plain(cfg.dataset)
    if not settings:
        raise UserError(
            f"{path} was imported and names no dataset", "give one: dataset=glas, or another"
        )
    index = open_dataset(settings)
    trained, present = ([c.name for c in owner.classes] for owner in (predictor, index))
    if trained != present:
        raise UserError(
            f"{path} was trained on the classes {', '.join(trained)}, "
            f"but dataset {index.name} has {', '.join(present)}",
            "evaluate on a dataset with the same classes; those of your own folder are named by "
            f"'dataset.classes=[{','.join(trained)}]'",
        )
    dataset = SegmentationDataset(
        index.split(cfg.split),
        predictor.preprocessing,
        index.labels,
        cache_megabytes=0,  # each case is read once
    )
    if cfg.tune:
        return tune_postprocessing(cfg, predictor, dataset)
    with progress(f"evaluating {index.name} {cfg.split}") as advance:
        evaluation = score(
            predictor,
            dataset,
            cfg.protocol.name,
            cfg.batch_size,
            advance,
            rule=InstanceRule(**plain(cfg.postprocess)),
            detail=True,
            tolerance=cfg.tolerance,
            pixel_size=index.pixel_size,
        )
    home = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    name = f"{index.name}-{cfg.split}-{cfg.protocol.name}{variant(cfg, len(checkpoints))}"
    evaluation.summary["prediction"] = {
        "checkpoints": [one.file for one in checkpoints],
        "mode": predictor.mode,
        "tta": cfg.tta,
    }
    folder = write_evaluation(evaluation, home / "evaluation" / name)
    Console(soft_wrap=True).print(render(evaluation))
    trained_on = {case for one in checkpoints for case in one.training_cases}
    seen = trained_on & {case.name for case in dataset.cases}
    origin = f"trained for {checkpoint.epoch} epochs" if checkpoint.dataset else "imported"
    if seen and cfg.split != "train" and settings["name"] == checkpoint.dataset.get("name"):
        print(f"\nwarning: {len(seen)} of these cases were trained on, such as {min(seen)}")
    others = "".join(f"\nand {shown(Path(one.file))}" for one in checkpoints[1:])
    print(f"\n{shown(path)}, {origin}{others}\nwritten to {shown(folder)}")
    return 0


def variant(cfg: DictConfig, networks: int) -> str:
    """What tells a result from the plain one of the first network, for the folder's name."""
    parts = [
        "" if cfg.postprocess.method == "none" else cfg.postprocess.method,
        cfg.mode or "",
        "tta" if cfg.tta else "",
        f"{networks}_networks" if networks > 1 else "",
    ]
    return "".join(f"+{part}" for part in parts if part)


def tune_postprocessing(cfg: DictConfig, predictor: Predictor, dataset: SegmentationDataset) -> int:
    """Print the best numbers of the method asked for, or of all methods, as overrides to paste."""
    from medt.evaluation.tuning import GOAL, tune

    asked = cfg.postprocess.method
    methods = ["none", "components", "watershed"] if asked == "none" else ["none", asked]
    with progress("tuning") as advance:
        trials = tune(predictor, dataset, methods, advance)
    print(f"{len(dataset)} cases ({cfg.split}), by the {GOAL}")
    for trial in trials:
        print(f"{trial.score:.4f}  {trial.rule}")
    best = max(trials, key=lambda trial: trial.score)
    print(f"\nbest, for evaluate.py and predict.py: {best.rule}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
