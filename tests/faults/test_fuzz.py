"""Whatever bytes or text the readers are given: an answer or one UserError, no other error."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import evaluate
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from medt.checkpoint import load_checkpoint
from medt.cli.arguments import quoted
from medt.data.labels import IDS
from medt.data.published.aperio import read_outlines
from medt.data.splits import read_splits
from medt.errors import UserError
from medt.io.images import count_pages, decode_image, decode_mask, orientation

EXAMPLES = 2000 if os.environ.get("MEDT_FAULTS") == "all" else 80
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=20_000,  # milliseconds: a hang; the largest image that is allowed takes seconds
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def encoded(extension: str) -> bytes:
    pixels = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)
    return bytes(cv2.imencode(extension, pixels)[1].tobytes())


def tiff(**how: Any) -> bytes:
    content = io.BytesIO()
    pixels = np.arange(12 * 9, dtype=np.uint16).reshape(12, 9)
    tifffile.imwrite(content, pixels, photometric="minisblack", **how)
    return content.getvalue()


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(np.full((9, 12), value, np.uint8)) for value in (0, 99, 200)]
    return by_pillow(frames[0], kind, save_all=True, append_images=frames[1:])


def by_pillow(image: Image.Image, kind: str, **how: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **how)
    return content.getvalue()


COLORS = Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3))
IMAGES = [encoded(e) for e in (".png", ".jpg", ".bmp")]
IMAGES += [tiff(), tiff(compression="zlib"), tiff(tile=(16, 16)), tiff(compression="lzma")]
IMAGES += [tiff(bigtiff=True), tiff(byteorder=">"), tiff(byteorder=">", bigtiff=True)]
IMAGES += [by_pillow(COLORS, "TIFF", compression=c) for c in ("tiff_lzw", "packbits", "jpeg")]
IMAGES += [by_pillow(COLORS.convert("1"), "TIFF", compression="group4")]
IMAGES += [by_pillow(COLORS, "JPEG", progressive=True), by_pillow(COLORS.convert("P"), "PNG")]
IMAGES += [animated(kind) for kind in ("GIF", "PNG", "TIFF")]
MOST_GROWTH = 600  # megabytes at the peak, over all examples of a test
XML = b'<Annotations><Annotation><Regions><Region Id="1"><Vertices><Vertex X="1" Y="2"/>' + (
    b'<Vertex X="5" Y="2"/><Vertex X="5" Y="7"/></Vertices></Region></Regions></Annotation>'
    b"</Annotations>"
)
SPLITS = b"case,group,split,fold\na,p1,train,0\nb,p2,val,1\n"


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """The data with a part cut out, overwritten or put in."""

    def damage(parts: tuple[int, int, bytes]) -> bytes:
        start, length, filling = parts
        return data[:start] + filling + data[start + length :]

    places = st.integers(0, len(data)), st.integers(0, 40), st.binary(max_size=40)
    return st.tuples(*places).map(damage)


def either(samples: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=300), *map(damaged, samples))


def answers(reader: Callable[[], object]) -> None:
    """It returns, or refuses in one line."""
    with contextlib.suppress(UserError):
        reader()


def peak() -> float:
    """Megabytes that the process has had at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a header announces is bounded by the limit, and all else by that."""
    monkeypatch.setenv("MEDT_MAX_PIXELS", str(2**22))
    before = peak()
    yield
    assert peak() - before < MOST_GROWTH


@BOUNDED
@given(either(IMAGES), st.sampled_from([None, 0, 2]))
@pytest.mark.usefixtures("little_memory")
def test_the_image_reader(data: bytes, page: int | None) -> None:
    answers(lambda: decode_image(data, "fuzz", page))


@BOUNDED
@given(either(IMAGES), st.sampled_from([None, 0, 2]))
@pytest.mark.usefixtures("little_memory")
def test_the_mask_reader(data: bytes, page: int | None) -> None:
    answers(lambda: IDS.class_ids(decode_mask(data, "fuzz", page), "fuzz"))


@BOUNDED
@given(st.sampled_from(IMAGES), st.data())
@pytest.mark.usefixtures("little_memory")
def test_numbers_of_an_image_that_are_changed(data: bytes, changes: st.DataObject) -> None:
    """As a damage of many bytes seldom does: sizes, counts and places that are still whole."""
    changed = bytearray(data)
    for _ in range(changes.draw(st.integers(1, 3))):
        size = changes.draw(st.sampled_from([1, 2, 4, 8]))
        place = changes.draw(st.integers(0, len(data) - size))
        number = changes.draw(st.sampled_from([0, 1, 255, 2**15, 2**16 - 1, 2**20, 2**31, 2**32]))
        order = changes.draw(st.sampled_from(["little", "big"]))
        changed[place : place + size] = (number % 2 ** (8 * size)).to_bytes(size, order)
    for reader in (decode_image, decode_mask, count_pages):
        answers(lambda reader=reader: reader(bytes(changed), "fuzz"))
    assert orientation(bytes(changed)) in range(1, 9)


@pytest.mark.parametrize("number", range(len(IMAGES)))
def test_what_is_damaged_here_was_an_image(number: int) -> None:
    assert decode_image(IMAGES[number], "whole", 0).shape[:2] in ((12, 9), (9, 12))


@BOUNDED
@given(either([XML]))
def test_the_annotation_reader(data: bytes) -> None:
    answers(lambda: read_outlines(data, "fuzz"))


@BOUNDED
@given(either([SPLITS]))
def test_the_split_reader(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "splits.csv").write_bytes(data)
    answers(lambda: read_splits(tmp_path / "splits.csv"))


@BOUNDED
@given(st.data())
def test_the_checkpoint_reader(tiny_run: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = (tiny_run / "checkpoints/best.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(data.draw(either([whole])))
    answers(lambda: load_checkpoint(tmp_path / "a.pt").build_model())


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers()),
)


@BOUNDED
@given(st.data())
def test_the_values_in_a_checkpoint(tiny_run: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = torch.load(tiny_run / "checkpoints/best.pt", weights_only=True)
    key = data.draw(st.sampled_from(sorted(content)))
    value = data.draw(PLAIN)
    if isinstance(content[key], dict) and content[key] and data.draw(st.booleans()):
        content[key][data.draw(st.sampled_from(sorted(content[key])))] = value
    else:
        content[key] = value
    torch.save(content, tmp_path / "a.pt")
    from medt.inference.predictor import Predictor

    answers(lambda: Predictor.load(tmp_path / "a.pt"))


@settings(max_examples=25, deadline=5000)
@given(
    st.sampled_from(
        ["checkpoint", "split", "batch_size", "tolerance", "mode", "dataset", "postprocess", "x.y"]
    ),
    st.text(max_size=12),
    st.booleans(),
)
@example(key="dataset", value="\0", quote=True)
def test_the_overrides(key: str, value: str, quote: bool) -> None:
    given_ = f"{key}={quoted(value) if quote else value}"
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = evaluate.main(["checkpoint=nowhere.pt", given_])
    assert code == 1
    assert said.getvalue().startswith("error: "), given_
    assert said.getvalue().count("\n") == 1, given_
    assert "not foreseen" not in said.getvalue(), given_


@pytest.mark.parametrize("size", [0, 1, 7])
def test_next_to_nothing(size: int) -> None:
    for reader in (decode_image, decode_mask):
        with pytest.raises(UserError):
            reader(b"\x89PNG\r\n\x1a\n"[:size], "fuzz")
