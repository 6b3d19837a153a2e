"""Outlines become pixels by one of three rules: areas, places, and sets that never mix."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import prepare_data
import pytest
import train
from shapely.geometry import Point, Polygon, box
from test_monuseg import CASES, SQUARE, picture, region, write_case

from medt.config.ranges import CHOICES
from medt.data.layout import read_card
from medt.data.open import open_dataset, prepare_dataset
from medt.data.published.aperio import RASTERS, Outline, draw_instances, read_outlines
from medt.data.stored import locate
from medt.errors import UserError
from medt.io.images import read_mask
from medt.metrics.nuclei import nuclei_sums, summarize_nuclei

SIDE = 64
CENTRE = {"challenge": 1.0, "centres": 0.5, "outline": 0.5}  # of the first pixel


def drawn(vertices: np.ndarray, raster: str) -> np.ndarray:
    return draw_instances([Outline(vertices)], (SIDE, SIDE), "a.xml", raster)[0] > 0


def nucleus(seed: int, digits: int = 9) -> np.ndarray:
    """An outline without crossings, 8 to 40 pixels across, somewhere in the image."""
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(8, 40)))
    radii = random.uniform(4, 20) * random.uniform(0.7, 1, len(angles))
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (random.uniform(26, 38, 2) + radii[:, None] * circle).round(digits)


SIMPLE = [v for v in map(nucleus, range(300)) if Polygon(v).is_valid and Polygon(v).area > 20]


@pytest.mark.parametrize("raster", ["challenge", "centres"])
def test_areas_are_exact_on_the_average_and_within_the_outline(raster: str) -> None:
    ratios = []
    for vertices in SIMPLE:
        exact = Polygon(vertices)
        area = drawn(vertices, raster).sum()
        # Only pixels that the outline cuts can differ: they lie within half a diagonal of it.
        assert abs(area - exact.area) <= 2**0.5 * exact.length + 2 * np.pi
        ratios.append(area / exact.area)
    assert len(ratios) > 200
    assert np.mean(ratios) == pytest.approx(1, abs=0.003)


@pytest.mark.parametrize("raster", ["challenge", "centres"])
@pytest.mark.parametrize("vertices", SIMPLE[:20])
def test_a_pixel_is_inside_if_its_centre_is(raster: str, vertices: np.ndarray) -> None:
    exact, mask = Polygon(vertices), drawn(vertices, raster)
    for row, column in np.ndindex(SIDE, SIDE):
        centre = Point(column + CENTRE[raster], row + CENTRE[raster])
        assert mask[row, column] == exact.contains(centre)


def test_the_challenge_counts_from_one_and_keeps_centres_on_right_and_lower_edges() -> None:
    """As poly2mask(x, y, m, n), in which the centre of the first pixel is at (1, 1)."""
    whole = np.array(SQUARE, np.float64)
    outlines = {shift: [Outline(whole + shift)] for shift in (0.0, 0.4, 0.6, 1.0)}
    found = {s: draw_instances(o, (6, 8), "a.xml")[0].tolist() for s, o in outlines.items()}
    assert found[0.0] == picture("........ ..1111.. ..1111.. ..1111.. ........ ........")
    assert found[0.4] == found[0.6] == found[0.0], "from 2.4 to 6.6 lie the centres 3 to 6"
    assert found[1.0] == picture("........ ........ ...1111. ...1111. ...1111. ........")
    halves = draw_instances(outlines[0.6], (6, 8), "a.xml", "centres")[0].tolist()
    assert halves == found[1.0], "these lie at 3.5 to 6.5, where the image has them"


@pytest.mark.parametrize("vertices", SIMPLE[:60])
def test_the_outline_adds_the_pixels_that_it_runs_through(vertices: np.ndarray) -> None:
    wide, inside = drawn(vertices, "outline"), drawn(vertices, "centres")
    assert not (inside & ~wide).any()
    line = Polygon(vertices).exterior
    for row, column in np.argwhere(wide & ~inside):
        # A line of OpenCV rounds to whole pixels, and its ends to pixels that it just reaches.
        assert box(column, row, column + 1, row + 1).distance(line) < 0.5
    painted = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(painted, [vertices.astype(np.int32)], 1)  # as most scripts do
    assert (wide != (painted > 0)).sum() < 0.35 * line.length
    assert wide.sum() == pytest.approx(Polygon(vertices).area + 0.45 * line.length, rel=0.15)


def test_the_outline_is_drawn_at_the_borders_of_the_image_too() -> None:
    corners = np.array([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], np.float64)
    assert drawn(corners, "outline").all()
    beyond = np.array([(-9, 60), (900, 60), (900, 1e5), (-9, 1e5)], np.float64)
    assert drawn(beyond, "outline")[60:].all()
    assert not drawn(beyond, "outline")[:60].any()
    thin = np.array([(5.6, 5.6), (9.4, 5.6), (5.6, 5.7)])
    assert not drawn(thin, "centres").any()
    assert np.argwhere(drawn(thin, "outline")).tolist() == [[5, 5], [5, 6], [5, 7], [5, 8], [5, 9]]


def test_a_hole_is_not_widened() -> None:
    square = np.array(SQUARE, np.float64)
    hole = Outline(np.array([(3, 2), (5, 2), (5, 3), (3, 3)], np.float64), hole=True)
    with_hole = draw_instances([Outline(square), hole], (6, 8), "a.xml", "outline")[0]
    without = draw_instances([Outline(square)], (6, 8), "a.xml", "outline")[0]
    assert np.argwhere(with_hole != without).tolist() == [[2, 3], [2, 4]]


class TestPreparedSets:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        for name in CASES:
            write_case(tmp_path / "download", name, region((1.6, 1.6), (6, 1.6), (6, 4), (1.6, 4)))
        return tmp_path / "download"

    def settings(self, folder: Path, **more: str) -> dict[str, str]:
        files = {"root": str(folder / "monuseg"), "splits_file": str(folder / "monuseg.csv")}
        return {"name": "monuseg", **files, **more}

    def pixels(self, folder: Path) -> int:
        return int((read_mask(folder / "monuseg" / "masks" / f"{CASES[0]}.png") > 0).sum())

    def test_the_rule_decides_the_masks_and_stands_in_the_card(self, archive, tmp_path) -> None:
        areas = {}
        for raster in (*RASTERS, None):
            given = self.settings(tmp_path, **({"raster": raster} if raster else {}))
            assert not prepare_dataset(given, archive).existed
            assert prepare_dataset(given, archive).existed
            card = read_card(tmp_path / "monuseg")
            assert card.prepared["raster"] == (raster or RASTERS[0])
            areas[raster] = self.pixels(tmp_path)
        # By centres x is 2.5 to 5.5 and y 2.5 to 3.5; in the challenge 2 to 6 and 2 to 4.
        assert areas == {"challenge": 15, "centres": 8, "outline": 24, None: 15}

    def test_a_set_of_another_rule_is_not_trained_on(self, archive, tmp_path) -> None:
        prepare_dataset(self.settings(tmp_path, raster="outline"), archive)
        assert len(open_dataset(self.settings(tmp_path, raster="outline")).cases) == 3
        said = (
            "monuseg was prepared with dataset.raster=outline, challenge is asked for .give "
            "dataset.raster=outline, or prepare it again: python scripts/prepare_data.py "
            "dataset=monuseg dataset.raster=challenge source="
        )
        with pytest.raises(UserError, match=said):
            open_dataset(self.settings(tmp_path, raster="challenge"))

    def test_a_set_of_before_is_by_centres_and_made_anew_for_the_challenge(
        self, archive, tmp_path
    ) -> None:
        prepare_dataset(self.settings(tmp_path, raster="centres"), archive)
        card = tmp_path / "monuseg" / "dataset.yaml"
        card.write_text(card.read_text().replace("  raster: centres\n", ""))
        assert open_dataset(self.settings(tmp_path, raster="centres")).cases
        with pytest.raises(UserError, match=r"with dataset\.raster=centres, challenge is asked"):
            open_dataset(self.settings(tmp_path, raster="challenge"))
        assert prepare_dataset(self.settings(tmp_path, raster="centres"), archive).existed
        assert not prepare_dataset(self.settings(tmp_path, raster="challenge"), archive).existed
        assert self.pixels(tmp_path) == 15

    def test_a_run_of_before_goes_on_by_centres(self, archive, tmp_path) -> None:
        """Its settings have no rule, and data of another one are not taken for its own."""
        prepare_dataset(self.settings(tmp_path), archive)
        stored = locate(self.settings(tmp_path), tmp_path)
        assert stored["raster"] == "centres"
        with pytest.raises(UserError, match=r"with dataset\.raster=challenge, centres is asked"):
            open_dataset(stored)

    def test_the_commands_take_the_key(self, refused, archive, tmp_path, capsys) -> None:
        given = ["dataset=monuseg", f"paths.data={tmp_path}/data"]
        wide = "dataset.raster=outline"
        assert prepare_data.main([*given, wide, f"source={archive}"]) == 0
        refused(train.main, given, "was prepared with dataset.raster=outline, challenge")
        said = "dataset.raster=thick is not known (choose one of challenge, centres, outline)"
        refused(train.main, [*given, "dataset.raster=thick"], said)
        refused(train.main, ["dataset=glas", wide], "raster")

    def test_unknown_rules_are_refused(self, archive, tmp_path) -> None:
        with pytest.raises(UserError, match="raster=thick is not known"):
            prepare_dataset(self.settings(tmp_path, raster="thick"), archive)
        assert CHOICES["dataset.raster"] == RASTERS


@pytest.mark.slow
def test_the_difference_between_the_rules_on_real_nuclei(shared: Path) -> None:
    """The figures of docs/published-data.md, on the 13 cases of the part."""
    archive = zipfile.ZipFile(shared / "data" / "monuseg_2018_train_part.zip")
    files = [name for name in archive.namelist() if name.endswith(".xml")]
    outlines = [read_outlines(archive.read(file), file) for file in files]
    maps = {
        raster: [draw_instances(each, (1000, 1000), "a.xml", raster)[0] for each in outlines]
        for raster in RASTERS
    }

    def aji(first: str, second: str) -> float:
        sums = [nuclei_sums(a, b) for a, b in zip(maps[first], maps[second], strict=True)]
        return summarize_nuclei(sums)["mean"]["aji"]

    assert aji("centres", "challenge") == pytest.approx(0.938, abs=0.005)
    assert aji("outline", "challenge") == pytest.approx(0.903, abs=0.005)
    assert aji("outline", "centres") == pytest.approx(0.910, abs=0.005)
    counted = {raster: sum((m > 0).sum() for m in every) for raster, every in maps.items()}
    assert counted["challenge"] / counted["centres"] == pytest.approx(1, abs=0.002)
    assert counted["outline"] / counted["centres"] == pytest.approx(1.086, abs=0.005)
