"""Files that were made to do harm: refused with one line, before they take memory or run code."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import evaluate
import import_official
import numpy as np
import predict
import pytest
import tifffile
import torch

from medt.checkpoint import load_checkpoint
from medt.data.published.aperio import Outline, draw_instances, read_outlines
from medt.errors import UserError
from medt.io.files import list_images, write_png
from medt.io.images import decode_image, decode_mask, read_image

Refused = Callable[..., None]


class Bomb:
    """Runs a command when it is unpickled by an unwary reader."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.file}",)


@pytest.fixture
def whole(tiny_run: Path) -> dict[str, object]:
    content: dict[str, object] = torch.load(tiny_run / "checkpoints/best.pt", weights_only=True)
    return content


class TestCheckpoints:
    @pytest.mark.parametrize("main", [evaluate.main, predict.main, import_official.main])
    def test_code_in_a_pickle_is_not_run(
        self, refused: Refused, tmp_path: Path, main: Callable[..., int]
    ) -> None:
        file, traces = tmp_path / "evil.pt", tmp_path / "traces"
        torch.save({"format": "medt-checkpoint-1", "weights": Bomb(traces)}, file)
        arguments = {
            evaluate.main: [f"checkpoint={file}"],
            predict.main: [f"checkpoint={file}", f"input={tmp_path}", f"output={tmp_path}/o"],
            import_official.main: [f"weights={file}", f"output={tmp_path}/o.pt"],
        }[main]
        refused(main, arguments, "evil.pt is damaged or not a")
        assert not traces.exists()

    def test_a_bare_pickle_is_none(self, refused: Refused, tmp_path: Path) -> None:
        (tmp_path / "evil.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "traces")))
        refused(evaluate.main, [f"checkpoint={tmp_path}/evil.pt"], "evil.pt is damaged")
        assert not (tmp_path / "traces").exists()

    @pytest.mark.parametrize("target", ["os.system", "subprocess.Popen", "torch.hub.load"])
    def test_classes_outside_our_models_are_not_built(
        self, refused: Refused, whole: dict[str, object], tmp_path: Path, target: str
    ) -> None:
        whole["model"] = {"_target_": target, "command": f"touch {tmp_path}/traces"}
        torch.save(whole, tmp_path / "evil.pt")
        refused(evaluate.main, [f"checkpoint={tmp_path}/evil.pt"], target, f"allow={target}")

    def test_a_file_that_claims_a_terabyte_is_refused_unread(
        self, refused: Refused, whole: dict[str, object], tmp_path: Path
    ) -> None:
        """A deflated record of zeros: a thousand times what the file takes."""
        whole["weights"] = {"a": torch.zeros(2**26)}
        content = io.BytesIO()
        torch.save(whole, content)
        bomb = tmp_path / "bomb.pt"
        with zipfile.ZipFile(content) as plain, zipfile.ZipFile(bomb, "w") as packed:
            for entry in plain.infolist():
                packed.writestr(entry.filename, plain.read(entry), zipfile.ZIP_DEFLATED)
        assert bomb.stat().st_size < 2**20
        refused(evaluate.main, [f"checkpoint={bomb}"], "claims", "bomb.pt")

    def test_a_tensor_larger_than_what_is_stored_is_refused(
        self, refused: Refused, whole: dict[str, object], tmp_path: Path
    ) -> None:
        whole["weights"] = {"a": torch.zeros(1).expand(2**40)}
        torch.save(whole, tmp_path / "bomb.pt")
        refused(evaluate.main, [f"checkpoint={tmp_path}/bomb.pt"], "bomb.pt", "larger than")

    def test_a_network_larger_than_its_weights_is_not_built(
        self, refused: Refused, whole: dict[str, object], tmp_path: Path
    ) -> None:
        model = whole["model"]
        assert isinstance(model, dict)
        whole["model"] = {**model, "width_factor": 1e5}
        torch.save(whole, tmp_path / "bomb.pt")
        refused(evaluate.main, [f"checkpoint={tmp_path}/bomb.pt"], "do not fit")

    @pytest.mark.parametrize(
        ("count", "size", "fault"),
        [(25_000, 1, "25,000 weights"), (15_000, 0, "hold no value"), (3_000, 1, "more layers")],
    )
    def test_weights_do_not_buy_layers_for_nothing(
        self, whole: dict[str, object], tmp_path: Path, count: int, size: int, fault: str
    ) -> None:
        model = whole["model"]
        assert isinstance(model, dict)
        whole["model"] = {**model, "depths": [500_000, 500_000]}
        whole["weights"] = dict.fromkeys(map(str, range(count)), torch.zeros(size))
        torch.save(whole, tmp_path / "bomb.pt")
        with pytest.raises(UserError, match=rf"bomb\.pt.* {fault}"):
            load_checkpoint(tmp_path / "bomb.pt").build_model()


def png(width: int, height: int) -> bytes:
    """A PNG that claims so many grey pixels and holds next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def overwrite_tags(file: Path, **values: int) -> None:
    """Give 16 bit tags of a TIFF's first page other values."""
    data = bytearray(file.read_bytes())
    with tifffile.TiffFile(file) as tiff:
        places = {name: tiff.pages.first.tags[name].valueoffset for name in values}
    for name, value in values.items():
        data[places[name] : places[name] + 2] = struct.pack("<H", value)
    file.write_bytes(data)


class TestImages:
    @pytest.mark.parametrize("decode", [decode_image, decode_mask])
    def test_a_bomb_is_refused_unread(self, decode: Callable[..., object]) -> None:
        with pytest.raises(UserError, match="claims 60000 x 60000 pixels") as caught:
            decode(png(60_000, 60_000), "bomb.png")
        assert "MEDT_MAX_PIXELS" in str(caught.value)

    def test_a_tiff_bomb_too(self, tmp_path: Path) -> None:
        file = tmp_path / "bomb.tif"
        tifffile.imwrite(file, shape=(8, 8), dtype=np.uint8)
        overwrite_tags(file, ImageWidth=60_000, ImageLength=60_000, RowsPerStrip=60_000)
        with pytest.raises(UserError, match="claims 60000 x 60000 pixels"):
            read_image(file)

    @pytest.mark.parametrize("tag", ["ImageLength", "ImageWidth"])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_a_tiff_of_more_than_it_holds(
        self, tmp_path: Path, compression: str | None, tag: str
    ) -> None:
        """OpenCV would give the missing part as zeros, after a while."""
        file = tmp_path / "a.tif"
        pixels = np.zeros((8, 8), np.uint8)
        tifffile.imwrite(file, pixels, compression=compression, rowsperstrip=8)
        overwrite_tags(file, **{tag: 60_000})
        with pytest.raises(UserError, match=r"a\.tif cannot be decoded"):
            read_image(file)

    def test_nor_one_whose_samples_differ_in_depth(self, tmp_path: Path) -> None:
        file = tmp_path / "a.tif"
        tifffile.imwrite(file, np.zeros((8, 8, 3), np.uint8), photometric="rgb")
        overwrite_tags(file, BitsPerSample=7, ImageWidth=60_000)
        with pytest.raises(UserError, match=r"a\.tif cannot be decoded"):
            read_image(file)

    @pytest.mark.parametrize(
        ("channels", "tag"),
        [pytest.param(1, "StripOffsets", id="tifffile"), pytest.param(4, "Software", id="Pillow")],
    )
    def test_the_readers_own_warnings_are_not_shown(
        self, tmp_path: Path, channels: int, tag: str
    ) -> None:
        file = tmp_path / "a.tif"
        pixels = np.zeros((8, 8, channels), np.uint8)
        tifffile.imwrite(file, pixels, software="a name of its own")
        with tifffile.TiffFile(file) as tiff:
            place = tiff.pages.first.tags[tag].offset + 4
        data = bytearray(file.read_bytes())
        data[place : place + 4] = struct.pack("<I", 5000)  # values, more than there are bytes
        file.write_bytes(data)
        script = "import sys; from medt.io.images import read_image; read_image(sys.argv[1])"
        ended = subprocess.run(
            [sys.executable, "-c", script, str(file)], capture_output=True, text=True
        )
        assert ended.stderr == "" or ended.stderr.startswith("Traceback"), ended.stderr

    def test_the_limit_can_be_set(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        file = tmp_path / "a.png"
        write_png(file, np.zeros((20, 30), np.uint8))
        monkeypatch.setenv("MEDT_MAX_PIXELS", "599")
        with pytest.raises(UserError, match="claims 30 x 20 pixels, more than 599"):
            read_image(file)
        monkeypatch.setenv("MEDT_MAX_PIXELS", "600")
        assert read_image(file).shape == (20, 30)
        monkeypatch.setenv("MEDT_MAX_PIXELS", "many")
        with pytest.raises(UserError, match="MEDT_MAX_PIXELS=many is no number"):
            read_image(file)

    def test_a_link_out_of_the_folder_is_refused(
        self, refused: Refused, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_png(tmp_path / "secret.png", np.zeros((8, 8), np.uint8))
        (tmp_path / "in").mkdir()
        (tmp_path / "in/a.png").symlink_to(tmp_path / "secret.png")
        given = [f"checkpoint={tiny_run}", f"input={tmp_path}/in", f"output={tmp_path}/out"]
        refused(predict.main, given, "in/a.png is a link out of", "MEDT_ALLOW_LINKS=1")
        with pytest.raises(UserError, match="link out of"):
            list_images(tmp_path / "in")
        monkeypatch.setenv("MEDT_ALLOW_LINKS", "1")
        assert list_images(tmp_path / "in") == [tmp_path / "in/a.png"]

    @pytest.mark.skipif(sys.platform == "win32", reason="such names do not exist there")
    def test_a_name_with_a_line_break_stays_one_line(
        self, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in/a\nb.png").write_bytes(b"no image")
        given = [f"checkpoint={tiny_run}", f"input={tmp_path}/in", f"output={tmp_path}/out"]
        assert predict.main(given) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "a\\nb.png" in error


class TestAnnotations:
    def test_entities_do_not_expand(self) -> None:
        lol = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
        with pytest.raises(UserError, match="DOCTYPE is not accepted"):
            read_outlines(lol, "bomb.xml")

    def test_files_are_not_included(self) -> None:
        thief = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'
        with pytest.raises(UserError, match="DOCTYPE is not accepted"):
            read_outlines(thief, "thief.xml")

    def test_a_file_larger_than_any_annotation_is_not_parsed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("medt.data.published.aperio.LARGEST", 1000)
        with pytest.raises(UserError, match=r"large\.xml has 0\.0 MB, more than"):
            read_outlines(b"<a>" + b" " * 1000 + b"</a>", "large.xml")

    def test_depth_is_no_harm(self) -> None:
        deep = b"<a>" * 200_000 + b"</a>" * 200_000
        with pytest.raises(UserError, match="nested"):
            read_outlines(deep, "deep.xml")

    @pytest.mark.parametrize(
        ("outline", "count", "fault"),
        [
            pytest.param(((0, 0), (999, 0), (999, 999)), 201, "cover the image", id="all over"),
            pytest.param(((0, 0), (9, 999)) * 50_000, 1, "too many corners", id="corners"),
            pytest.param(((5, 5), (6, 5), (6, 6)), 65_536, "65,536 outlines", id="many"),
        ],
    )
    def test_outlines_that_take_hours_are_not_drawn(
        self, outline: tuple[tuple[int, int], ...], count: int, fault: str
    ) -> None:
        """And numbers beyond 16 bit would begin again at 0."""
        outlines = [Outline(np.array(outline, np.float64))] * count
        with pytest.raises(UserError, match=rf"a\.xml has .*{fault}"):
            draw_instances(outlines, (1000, 1000), "a.xml")

    def test_as_many_outlines_as_there_are_numbers_are(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("medt.data.published.aperio.MOST_OUTLINES", 255)
        at = np.array([(x, y) for y in range(16) for x in range(16)], np.float64)
        square = np.array(((0, 0), (1, 0), (1, 1), (0, 1)))
        outlines = [Outline(a + square) for a in at]
        instances, _ = draw_instances(outlines[:-1], (16, 16), "a.xml", "centres")
        assert instances.max() == 255
        with pytest.raises(UserError, match="256 outlines, more than 255"):
            draw_instances(outlines, (16, 16), "a.xml")


def test_load_checkpoint_still_reads_what_is_right(tiny_run: Path) -> None:
    assert load_checkpoint(tiny_run).build_model() is not None
