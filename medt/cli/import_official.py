"""Weights of the official code as a checkpoint of ours: see configs/import_official.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medt.checkpoint import Checkpoint, build_model, model_spec, save_checkpoint
from medt.cli.settings import plain
from medt.data.layout import default_classes
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.io.locks import locked_beside
from medt.models.sizes import as_size
from medt.models.weights import load_official, read_state_dict

OFFICIAL = ("medt", "logo", "gated_axial_unet", "axial_unet")


def import_official(cfg: DictConfig) -> int:
    weights, output, names = Path(cfg.weights), Path(cfg.output), list(cfg.classes)
    if len(set(names)) != len(names) or len(names) < 2:
        raise UserError(
            f"classes={names} is out of range", "give two or more different names, background first"
        )
    with locked_beside(output, "import_official.py"):
        if output.exists():
            raise UserError(f"{output} exists already", "give another output, or move it away")
        spec = model_arguments(cfg)
        official = read_state_dict(weights)
        model = build_model(spec)
        load_official(model, official, str(weights))
        height, width = spec["image_size"]
        channels = int(cfg.channels)
        order = "bgr" if channels == 3 else "rgb"
        unit = Preprocessing((height, width), channels, (0.0,) * channels, (1.0,) * channels, order)
        save_checkpoint(
            Checkpoint(
                model=spec,
                weights=model.state_dict(),
                preprocessing=unit.to_dict(),
                classes=[c.to_dict() for c in default_classes(names)],
                dataset={},
                config={"model": {"name": str(cfg.model.name)}},
                epoch=0,
                scores={},
                training_cases=[],
            ),
            output,
        )
    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{cfg.model.name}, {count:,} parameters, {height} x {width}, "
        f"{'BGR' if order == 'bgr' else f'{channels} channels'} divided by 255, "
        f"classes {', '.join(names)}\nwritten to {output}"
    )
    return 0


def model_arguments(cfg: DictConfig) -> dict[str, Any]:
    """The network's class and arguments; what other scripts take from the dataset is given here."""
    if cfg.model.name not in OFFICIAL:
        raise UserError(
            f"the official code has no model={cfg.model.name}",
            f"choose one of {', '.join(OFFICIAL)}",
        )
    written = OmegaConf.to_container(cfg.model, resolve=False)
    assert isinstance(written, dict)
    for key in ("image_size", "channels", "classes"):
        if not str(written[key]).startswith("${"):
            raise UserError(f"model.{key} is not read here", f"give {key}=...")
    return model_spec({**plain(cfg.model), "image_size": list(as_size(cfg.image_size))})
