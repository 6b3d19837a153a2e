"""A checkpoint's network for other programs, verified against it before the file is there."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medt.checkpoint import Checkpoint, build_model
from medt.data.preprocessing import Preprocessing
from medt.errors import UserError
from medt.inference.averaging import check_finite
from medt.io.files import atomic_write

INPUT, OUTPUT = "image", "logits"
BATCHES = (1, 3)  # sizes that the file is verified with, other than the one it is traced with
TRACED = 2
TOLERANCE = 1e-3  # of the logits' largest magnitude; float32 networks differ by about 1e-6

Network = Callable[[Tensor], Tensor]


def export_network(checkpoint: Checkpoint, path: Path, kind: str) -> float:
    """Write the network, read the file, and compare its logits with the checkpoint's.

    The file takes preprocessed images, float32 (N, C, H, W) of the network's size and any N, and
    gives logits (N, classes, H, W).

    Args:
        checkpoint: whose network it is.
        path: of the file, which appears only if its logits are right.
        kind: a key of FORMATS.

    Returns:
        The largest absolute difference of the logits, over batches of random images.

    Raises:
        UserError: a library is missing, the network cannot be exported, the logits differ, or the
            file cannot be written.
    """
    write, read = FORMATS[kind][1:]
    model = checkpoint.build_model()
    steps = Preprocessing.from_dict(checkpoint.preprocessing)
    shape = steps.channels, *steps.image_size
    with atomic_write(path) as temporary:
        try:
            with _quiet():
                write(checkpoint, model, torch.randn(TRACED, *shape), temporary)
                exported = read(checkpoint, temporary)
                difference, scale = _compare(model, exported, shape, checkpoint.file)
        except ImportError as error:
            raise UserError(
                f"format={kind} needs {error.name}", "pip install -e '.[export]'"
            ) from error
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"the network cannot be exported as {kind}: {' '.join(str(error).split())[:300]}",
                f"try another format: {', '.join(FORMATS)}",
            ) from error
        if not difference <= TOLERANCE * max(scale, 1.0):
            raise UserError(
                f"the logits of {path.name} differ from the checkpoint's by {difference:g}",
                f"try another format: {', '.join(FORMATS)}",
            )
    return difference


def _compare(
    model: nn.Module, exported: Network, shape: tuple[int, ...], name: str
) -> tuple[float, float]:
    """The largest difference and the largest magnitude of the logits of random images."""
    generator = torch.Generator().manual_seed(0)
    difference = scale = 0.0
    for batch in BATCHES:
        images = torch.randn(batch, *shape, generator=generator)
        with torch.inference_mode():
            expected = model(images)
        check_finite(expected, name)
        found = exported(images)
        if found.shape != expected.shape:
            raise ValueError(f"it gives {tuple(found.shape)} for {tuple(images.shape)}")
        difference = max(difference, float((found - expected).abs().max()))
        scale = max(scale, float(expected.abs().max()))
    return difference, scale


def _write_onnx(checkpoint: Checkpoint, model: nn.Module, images: Tensor, path: Path) -> None:
    import onnx
    import onnxruntime  # noqa: F401 - what reads it is missing before the minute of writing
    import onnxscript  # noqa: F401

    torch.onnx.export(
        model,
        (images,),
        str(path),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=[OUTPUT],
        external_data=False,
        verbose=False,
    )
    written = onnx.load(str(path))
    onnx.helper.set_model_props(written, _properties(checkpoint))
    onnx.save(written, str(path))


def _read_onnx(checkpoint: Checkpoint, path: Path) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _write_torch(checkpoint: Checkpoint, model: nn.Module, images: Tensor, path: Path) -> None:
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model, (images,), dynamic_shapes=dynamic)
    content = io.BytesIO()  # on a full disk PyTorch's own writer ends the process
    torch.export.save(program, content, extra_files=_properties(checkpoint))
    path.write_bytes(content.getvalue())


def _read_torch(checkpoint: Checkpoint, path: Path) -> Network:
    return _without_gradients(torch.export.load(path).module())


def _write_safetensors(
    checkpoint: Checkpoint, model: nn.Module, images: Tensor, path: Path
) -> None:
    from safetensors.torch import save

    weights = {name: value.clone().contiguous() for name, value in checkpoint.weights.items()}
    path.write_bytes(save(weights, metadata=_properties(checkpoint)))


def _read_safetensors(checkpoint: Checkpoint, path: Path) -> Network:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        spec = json.loads(file.metadata()["model"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = build_model(spec, checkpoint.allow)
    model.load_state_dict(weights)
    return _without_gradients(model.eval())


def _without_gradients(network: nn.Module) -> Network:
    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = network(images)
            return logits

    return run


# Of each: what the file's name ends with, and how it is written and read.
FORMATS: dict[str, tuple[str, Callable[..., None], Callable[..., Network]]] = {
    "onnx": (".onnx", _write_onnx, _read_onnx),
    "torch_export": (".pt2", _write_torch, _read_torch),
    "safetensors": (".safetensors", _write_safetensors, _read_safetensors),
}


def _properties(checkpoint: Checkpoint) -> dict[str, str]:
    """What a file says of its network beside the weights, as JSON."""
    values: dict[str, Any] = {
        "model": checkpoint.model,
        "preprocessing": checkpoint.preprocessing,
        "classes": checkpoint.classes,
    }
    return {name: json.dumps(value) for name, value in values.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say of their own work."""
    names = ("onnxscript", "onnx_ir", "torch.onnx", "torch.export")
    chatty = [logging.getLogger(name) for name in names]
    levels = [log.level for log in chatty]
    for log in chatty:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(chatty, levels, strict=True):
            log.setLevel(level)
