"""A dataset that a file names is read where it says, or below the user's own data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medt.data.layout import DatasetCard, default_classes, write_card
from medt.data.open import open_dataset
from medt.data.splits import SplitRow, write_splits
from medt.data.stored import AbsentDatasetError, locate
from medt.errors import UserError
from medt.io.files import write_png

SET = {"seed": 1, "train": 1, "val": 1, "test": 0, "size": 32}
FOLDER = "seed1-1-1-0-32px-g1"
SYNTHETIC: dict[str, Any] = {"name": "synthetic", **SET}


def prepared(root: Path, splits_file: Path) -> dict[str, Any]:
    """A prepared dataset of two cases, and the settings that name it."""
    for name in ("a", "b"):
        write_png(root / "images" / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
        write_png(root / "masks" / f"{name}.png", np.eye(8, dtype=np.uint8))
    card = DatasetCard("kvasir_seg", default_classes(("background", "polyp")), 3, "", "", "")
    write_card(root, card)
    write_splits(splits_file, [SplitRow("a", "", "train"), SplitRow("b", "", "val")])
    return {"name": "kvasir_seg", "root": str(root), "splits_file": str(splits_file)}


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


class TestPrepared:
    def test_is_read_where_the_file_says(self, tmp_path: Path, capsys) -> None:
        settings = prepared(tmp_path / "there", tmp_path / "there.csv")
        assert locate(settings, tmp_path / "data") == settings
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("absent", ["root", "splits_file"])
    def test_else_whole_below_the_own_data_folder(
        self, tmp_path: Path, capsys, absent: str
    ) -> None:
        settings = prepared(tmp_path / "there", tmp_path / "there.csv")
        own = prepared(tmp_path / "data/kvasir_seg", tmp_path / "data/splits/kvasir_seg.csv")
        settings[absent] = str(tmp_path / "gone")
        found = locate(settings, tmp_path / "data")
        assert found == own
        assert open_dataset(found).counts() == {"train": 1, "val": 1}
        said = capsys.readouterr().err
        assert said.startswith(f"{tmp_path}/gone")
        assert said.endswith(f" is not there: {own['root']} is read\n")

    def test_what_is_told_of_a_path_is_one_line(self, tmp_path: Path, capsys) -> None:
        prepared(tmp_path / "data/kvasir_seg", tmp_path / "data/splits/kvasir_seg.csv")
        odd = {"name": "kvasir_seg", "root": "a\nerror: b\x1b[2J", "splits_file": "c"}
        locate(odd, tmp_path / "data")
        said = capsys.readouterr().err
        assert said.startswith(r"a\nerror: b\x1b[2J/dataset.yaml is not there")
        assert said.count("\n") == 1

    def test_in_neither_place_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        settings = prepared(tmp_path / "there", tmp_path / "there.csv")
        settings["splits_file"] = str(tmp_path / "gone.csv")
        before = files_below(tmp_path)
        with pytest.raises(AbsentDatasetError, match=r"there is no .*gone\.csv .*paths\.data="):
            locate(settings, tmp_path / "data", draws=True)
        assert files_below(tmp_path) == before


class TestFolder:
    @pytest.mark.parametrize("key", ["images", "masks", "splits_file"])
    def test_that_lacks_anything_is_an_error_that_names_it(self, tmp_path: Path, key: str) -> None:
        prepared(tmp_path / "there", tmp_path / "there.csv")
        settings = {
            "name": "folder",
            "images": f"{tmp_path}/there/images",
            "masks": f"{tmp_path}/there/masks",
            "splits_file": f"{tmp_path}/there.csv",
        }
        assert locate(settings, tmp_path / "data", draws=True) == settings
        settings[key] = f"{tmp_path}/gone/away"
        before = files_below(tmp_path)
        with pytest.raises(AbsentDatasetError, match=rf"gone/away .*dataset\.{key}=") as raised:
            locate(settings, tmp_path / "data", draws=True)
        assert raised.value.keys == (key,)
        assert files_below(tmp_path) == before

    def test_without_a_split_file_gets_none_beside_the_images(self, tmp_path: Path) -> None:
        prepared(tmp_path / "there", tmp_path / "there.csv")
        images, masks = f"{tmp_path}/there/images", f"{tmp_path}/there/masks"
        before = files_below(tmp_path)
        with pytest.raises(AbsentDatasetError, match=r"there/images_splits\.csv"):
            locate({"name": "folder", "images": images, "masks": masks}, tmp_path, draws=True)
        assert files_below(tmp_path) == before


class TestSynthetic:
    def test_is_drawn_below_the_own_data_folder_never_where_the_file_says(
        self, tmp_path: Path, capsys
    ) -> None:
        settings = {**SYNTHETIC, "root": f"{tmp_path}/there"}
        found = locate(settings, tmp_path / "data", draws=True)
        assert found["root"] == f"{tmp_path}/data/synthetic"
        assert open_dataset(found).counts() == {"train": 1, "val": 1}
        assert not (tmp_path / "there").exists()
        where = f"in {tmp_path}/data/synthetic/{FOLDER}\n"
        assert capsys.readouterr().err.endswith(where)

    def test_is_read_where_it_is(self, tmp_path: Path, capsys) -> None:
        settings = {**SYNTHETIC, "root": f"{tmp_path}/there"}
        own = locate(settings, tmp_path / "data", draws=True)
        capsys.readouterr()
        assert locate(settings, tmp_path / "data") == own
        assert f"{tmp_path}/data/synthetic is read" in capsys.readouterr().err
        open_dataset(settings, draws=True)
        assert locate(settings, tmp_path / "data") == settings

    def test_is_not_drawn_without_leave(self, tmp_path: Path) -> None:
        with pytest.raises(AbsentDatasetError, match=f"there is no {tmp_path}/there/{FOLDER}"):
            locate({**SYNTHETIC, "root": f"{tmp_path}/there"}, tmp_path / "data")
        assert files_below(tmp_path) == set()

    @pytest.mark.parametrize(
        "large", [{"train": 2_000}, {"train": 1_500, "size": 256}, {"size": 4096, "train": 4}]
    )
    def test_of_many_pixels_is_not_drawn_for_a_file(
        self, tmp_path: Path, large: dict[str, int]
    ) -> None:
        settings = {**SYNTHETIC, "root": f"{tmp_path}/there", **large}
        with pytest.raises(AbsentDatasetError, match=r"at most 2,000 images and 67,108,864 pixels"):
            locate(settings, tmp_path / "data", draws=True)
        assert files_below(tmp_path) == set()

    def test_of_impossible_numbers_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"dataset\.test=1000000000 cannot be used"):
            locate({**SYNTHETIC, "root": "there", "test": 10**9}, tmp_path, draws=True)


def test_a_path_that_no_file_can_have_is_absent(tmp_path: Path) -> None:
    settings = {"name": "glas", "root": "a" * 4000, "splits_file": "b"}
    with pytest.raises(AbsentDatasetError, match="there is no aaaa"):
        locate(settings, tmp_path)
