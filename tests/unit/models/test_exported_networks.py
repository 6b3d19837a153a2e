"""Every network of configs/model as ONNX or by torch.export: the same logits, any batch."""

from __future__ import annotations

import pytest
from test_every_network import NAMES, TWO_BRANCHES, network, spec

from medt.checkpoint import Checkpoint
from medt.data.layout import default_classes
from medt.export.formats import FORMATS, export_network

SMALL = {
    "medt": ["model.global_depths=[1]", "model.local_depths=[1,1]"],
    "logo": ["model.global_depths=[1]", "model.local_depths=[1,1]"],
    "axial_unet": ["model.depths=[1,1]"],
    "gated_axial_unet": ["model.depths=[1,1]"],
}


# Of networks of one kind one is exported as ONNX, which takes long; it builds upon torch.export.
ONNX = ["medt", "medt_plus", "unet", "smp_unet"]
QUICK = [("medt", "onnx"), ("unet", "onnx"), ("gated_axial_unet", "torch_export")]
SLOW = {(name, "onnx" if name in ONNX else "torch_export") for name in NAMES} - set(QUICK)
CASES = [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in sorted(SLOW))]


@pytest.mark.seconds
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_gives_the_logits_of_the_checkpoint(name, kind, tmp_path):
    size = 64 if name in TWO_BRANCHES else 32
    model = network(name, *SMALL.get(name, []), size=size)
    checkpoint = Checkpoint(
        model=spec(name, *SMALL.get(name, []), size=size),
        weights=model.state_dict(),
        preprocessing={
            "image_size": [size, size],
            "channels": 3,
            "mean": [0.5] * 3,
            "std": [0.2] * 3,
        },
        classes=[c.to_dict() for c in default_classes(["background", "gland"])],
        dataset={},
        config={},
        epoch=1,
        scores={},
        training_cases=[],
    )
    path = tmp_path / f"network{FORMATS[kind][0]}"
    assert export_network(checkpoint, path, kind) < 1e-4
    assert path.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [path]
