"""How long predicting one large image takes, and how much memory at the most."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from medt.errors import UserError

MODES = ("resize", "sliding_window")
TILE = 500  # of noise, repeated: its compression and decoding are those of a photograph


def measure_large(checkpoint: Path, side: int, advance: Callable[[], None]) -> dict[str, Any]:
    """Predict a TIFF of side x side pixels in both modes, each in a process of its own.

    Returns:
        ``side``, and by mode ``seconds`` and ``memory``, the largest resident set in megabytes.

    Raises:
        UserError: a prediction failed.
    """
    modes = {}
    with tempfile.TemporaryDirectory(prefix="medt-benchmark-") as folder:
        image = Path(folder) / "large.tif"
        _write_image(image, side)
        for mode in MODES:
            output = Path(folder) / mode
            start = time.perf_counter()
            memory = _peak_memory(
                [f"checkpoint={checkpoint}", f"input={image}", f"output={output}", f"mode={mode}"]
            )
            modes[mode] = {"seconds": time.perf_counter() - start, "memory": memory}
            advance()
    return {"side": side, "modes": modes}


def _write_image(path: Path, side: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (TILE // 4, TILE // 4, 3), np.uint8)
    tile = cv2.resize(noise, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
    times = -(-side // TILE)
    pixels = np.tile(tile, (times, times, 1))[:side, :side]
    tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib", tile=(256, 256))


def _peak_memory(arguments: list[str]) -> float:
    child = subprocess.Popen(
        [sys.executable, "-m", "medt.cli", "predict", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    try:
        said = child.stderr.read()
    except BaseException:
        child.kill()
        child.wait()
        raise
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise UserError(f"predicting a large image failed: {said.strip()}", "predict it by hand")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return float(kilobytes) / 1000
