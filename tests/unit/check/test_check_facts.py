"""What the check reads off files, what it suggests, and what it draws and writes."""

from __future__ import annotations

import json
from pathlib import Path

import check_sample as spoiled
import numpy as np
import pytest
import tifffile
import torch
from check_sample import SETTINGS, SIZE, TRAIN, Sample
from conftest import recipe
from hypothesis import given
from hypothesis import strategies as st

from medt.check.cases import CaseFacts, ImageFacts, MaskFacts, examine_case
from medt.check.report import lines, report, tables
from medt.check.sheet import draw_sheet
from medt.check.suggestions import suggest_normalize, suggest_size
from medt.data.dataset import SegmentationDataset
from medt.data.labels import IDS, Labels
from medt.data.layout import Case
from medt.data.preprocessing import Preprocessing
from medt.data.preview import LARGE_OBJECTS, SMALL_OBJECTS, draw_preview, tiles_for
from medt.drawing import LINE, outlined
from medt.io.files import write_png
from medt.models import MedT


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path)


class TestFacts:
    def facts(self, folder: Path, image: np.ndarray, mask: np.ndarray, labels: Labels = IDS):
        case = Case("a", folder / "a.tif", folder / "mask.png", None, "", "train")
        colours = "rgb" if image.ndim == 3 and image.shape[2] > 2 else "minisblack"
        tifffile.imwrite(case.image, image, photometric=colours)
        write_png(case.mask, mask)
        return examine_case(case, labels, SETTINGS)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    @pytest.mark.parametrize("channels", [(), (3,)])
    def test_intensities_are_numpys_on_the_scale_of_the_type(self, tmp_path, dtype, channels):
        scale = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
        drawn = np.random.default_rng(0).beta(2, 5, (37, 53, *channels)) * scale
        pixels = drawn.astype(dtype)
        image = self.facts(tmp_path, pixels, np.ones((37, 53), np.uint8)).image
        planes = np.atleast_3d(pixels.astype(np.float64) / scale).reshape(37 * 53, -1)
        np.testing.assert_allclose(image.mean, planes.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(image.deviation, planes.std(axis=0), rtol=1e-6)
        method = "linear" if dtype == np.float32 else "inverted_cdf"
        expected = np.percentile(planes, (1, 50, 99), axis=0, method=method).T
        np.testing.assert_allclose(image.percentiles, expected, rtol=1e-6)
        assert (image.low, image.high) == (pixels.min(), pixels.max())
        assert (image.height, image.width, image.channels) == (37, 53, len(planes[0]))
        assert image.kind == f"{'RGB' if channels else 'grey'} {np.dtype(dtype)}"

    def test_alpha_is_no_intensity(self, tmp_path):
        pixels = np.full((8, 9, 4), 255, np.uint8)
        pixels[..., :3] = 51
        image = self.facts(tmp_path, pixels, np.ones((8, 9), np.uint8)).image
        assert image.mean == pytest.approx((0.2, 0.2, 0.2))
        assert image.kind == "RGBA uint8"

    def test_numbers_that_are_none_are_left_out(self, tmp_path):
        pixels = np.full((4, 5), 0.25, np.float32)
        pixels[0] = np.nan, np.inf, -np.inf, 0.5, 0.0
        image = self.facts(tmp_path, pixels, np.ones((4, 5), np.uint8)).image
        assert (image.low, image.high) == (0.0, 0.5)
        assert self.facts(tmp_path, pixels * np.nan, np.ones((4, 5), np.uint8)).image.mean == (0,)

    def test_pixels_of_each_class_and_objects_of_the_mask(self, tmp_path):
        mask = np.zeros((40, 50), np.uint8)
        mask[2:12, 2:12] = 1  # 100 pixels
        mask[20:30, 2:12] = 1
        mask[20:30, 12:32] = 2  # touches the one before, but is of another class
        mask[38:] = 77
        found = self.facts(tmp_path, np.eye(40, 50), mask, Labels({0: 0, 1: 1, 2: 2}, 77)).mask
        assert found.pixels == {0: 40 * 50 - 500, 1: 200, 2: 200}
        assert (found.ignored, found.labelled, found.objects) == (100, 1900, 3)
        assert found.foreground == pytest.approx(400 / 1900)
        assert found.typical == pytest.approx(2 * np.sqrt(100 / np.pi))

    def test_instances_count_where_there_are_any(self, sample):
        instances = np.repeat(np.arange(SIZE, dtype=np.uint16)[:, None] // 8, SIZE, axis=1)
        write_png(sample.folder / "instances.png", instances)
        sample.change("case_3", instances=sample.folder / "instances.png")
        facts = sample.check().cases[3]
        assert facts.mask.objects == 7
        assert facts.mask.typical == pytest.approx(2 * np.sqrt(8 * SIZE / np.pi))


def fact(height: int, width: int, small: float | None = None, **image: object) -> CaseFacts:
    values = {"dtype": "uint8", "low": 0.0, "high": 255.0, "percentiles": ((0.1, 0.5, 0.9),)}
    seen = ImageFacts(
        height=height,
        width=width,
        channels=1,
        alpha=0,
        mean=(0.5,),
        deviation=(0.2,),
        thumbnail=np.zeros((64, 64), np.uint8),
        digest=b"",
        **{**values, **image},
    )
    objects = 0 if small is None else 1
    mask = MaskFacts(height, width, {0: 1}, 0, objects, small, small, 0, 99.0, b"")
    return CaseFacts(Case("a", Path(), Path(), None, "", "train"), seen, mask)


class TestSuggestions:
    @pytest.mark.parametrize(
        ("facts", "size"),
        [
            (fact(522, 775, small=80), (128, 128)),  # GlaS
            (fact(1000, 1000, small=15), (512, 512)),  # MoNuSeg
            (fact(512, 512), (128, 128)),
            (fact(500, 1500, small=200), (128, 256)),
            (fact(500, 1500, small=15), (256, 512)),
            (fact(100, 90, small=3), (128, 128)),
        ],
    )
    def test_the_smallest_size_that_shows_the_smaller_objects(self, facts, size):
        assert suggest_size([facts]).size == size

    @given(st.integers(1, 5000), st.integers(1, 5000), st.none() | st.floats(0.5, 3000))
    def test_is_a_size_for_medt_in_proportion(self, height, width, small):
        suggested = suggest_size([fact(height, width, small)])
        for side, own in zip(suggested.size, (height, width), strict=True):
            assert side in (128, 256, 384, 512)
            assert side < own + 128
        scales = suggested.size[0] / height, suggested.size[1] / width
        if max(height, width) <= 2 * min(height, width) and min(height, width) >= 128:
            assert max(scales) <= 1.5 * min(scales) * (1 + 1e-9)
        if suggested.enough and small is not None:
            assert small * min(scales) >= 6

    def test_its_steps_are_medts(self):
        for width in (128, 256, 384, 512):
            with torch.device("meta"):
                assert MedT(image_size=(128, width)) is not None

    def test_too_small_objects_are_for_crops(self):
        suggested = suggest_size([fact(2000, 2000, small=10)])
        assert not suggested.enough
        assert "dataset.sampling=crop" in suggested.reason

    @pytest.mark.parametrize(
        ("facts", "normalize", "reason"),
        [
            ([fact(9, 9)], "dataset", "alike"),
            ([fact(9, 9, dtype="float32", low=-1000.0)], "percentile", "beyond 0..1"),
            (
                [fact(9, 9, dtype="uint16", percentiles=((0.0, 0.01, 0.06),))],
                "percentile",
                "use 6% of their range",
            ),
            (
                [fact(9, 9), fact(9, 9, percentiles=((0.1, 0.12, 0.2),))] * 5,
                "percentile",
                "contrast differs 8.0 fold",
            ),
        ],
    )
    def test_normalize_follows_range_and_contrast(self, facts, normalize, reason):
        suggested, why = suggest_normalize(facts)
        assert suggested == normalize
        assert reason in why


class TestReport:
    def test_holds_what_was_found_as_strict_json(self, sample):
        spoiled.truncated(sample)
        spoiled.not_a_number(sample)
        sample.write("case_5", np.full((SIZE, SIZE, 3), np.nan, np.float32))
        spoiled.no_mask(sample)
        check = sample.check()
        values = json.loads(json.dumps(report(check), allow_nan=False))
        assert (values["dataset"], values["errors"]) == ("sample", len(check.errors))
        assert [found["code"] for found in values["findings"]] == [
            found.code for found in check.findings
        ]
        assert values["splits"]["train"]["cases"] == 10
        assert values["splits"]["val"]["width"] == [SIZE, SIZE]
        assert values["splits"]["val"]["kinds"] == {"RGB float32": 5}
        case = values["cases"][3]
        assert (case["case"], case["findings"][0], case["mask"]) == ("case_3", "unreadable", None)
        assert values["cases"][4]["mask"]["pixels"].keys() == {"0", "1"}
        assert sum(values["cases"][4]["mask"]["pixels"].values()) == SIZE * SIZE
        assert values["suggestions"]["image_size"]["value"] == [128, 128]

    def test_tables_and_lines_are_narrow_and_plain(self, sample):
        spoiled.lumen_nowhere(sample)
        spoiled.other_size(sample)
        check = sample.check()
        text = [line for found in lines(check) for line in found.plain.splitlines()]
        assert max(map(len, text)) <= 80
        assert text[0].startswith("error    sizes: Image and mask differ in size: case_3: image")
        assert any(line.startswith("         -> repair or remove the pair") for line in text)
        assert any(line.startswith("suggests dataset.image_size=128: images of") for line in text)
        assert all(ord(letter) < 128 for line in text for letter in line)
        splits, classes = tables(check)
        assert (splits.row_count, classes.row_count) == (3, 3)

    def test_nothing_readable_is_reported_too(self, sample):
        for case in sample.cases.values():
            case.image.write_bytes(b"")
            case.mask.write_bytes(b"")
        check = sample.check()
        assert report(check)["suggestions"] == {}
        assert [table.row_count for table in tables(check)] == [3, 2]
        assert len(lines(check)) == 2 * len(check.findings)
        assert draw_sheet(check, 12) is None


class TestSheet:
    def drawn(self, sample: Sample, most: int, monkeypatch) -> list[str]:
        """The captions, in order."""
        captions = []

        def note(tiles, caption=""):
            captions.append(caption)
            return np.zeros((4, 4, 3), np.uint8)

        monkeypatch.setattr("medt.check.sheet.strip", note)
        assert draw_sheet(sample.check(), most) is not None
        return captions

    def test_shows_cases_of_every_split_with_findings_first(self, sample, monkeypatch):
        spoiled.no_foreground(sample)
        spoiled.one_value(sample)
        sample.cases["case_0"].image.write_bytes(b"")  # cannot be shown
        sample.write("case_18", mask=np.zeros((SIZE, SIZE), np.uint8))
        largest = max(TRAIN, key=lambda name: sample.mask(name).mean())
        captions = self.drawn(sample, 9, monkeypatch)
        assert captions[:2] == ["case_3 (train): flat, empty", "case_4 (train): flat"]
        assert f"{largest} (train): largest foreground" in captions
        assert "case_18 (test): empty" in captions
        counts = [sum(split in caption for caption in captions) for split in ("train", "val", "t)")]
        assert counts == [3, 3, 3]

    def test_a_small_split_leaves_its_room_to_others(self, sample, monkeypatch):
        sample.cases = {name: sample.cases[name] for name in (*TRAIN, "case_12")}
        captions = self.drawn(sample, 6, monkeypatch)
        assert sum("(train)" in caption for caption in captions) == 5
        shown = [caption.partition(":")[0] for caption in self.drawn(sample, 100, monkeypatch)]
        assert shown == [
            *(f"{name} (train)" for name in TRAIN),
            "case_12 (val)",
        ]

    def test_a_pair_is_the_image_and_its_outlined_mask(self, sample):
        sample.cases = {"case_3": sample.cases["case_3"]}
        check = sample.check()
        sheet = draw_sheet(check, 1)
        colors = [c.color for c in check.index.classes]
        height = LARGE_OBJECTS.height
        pair = (sample.mask("case_3"), None)
        marked, plain = (outlined(sample.image("case_3"), m, colors, height, 2) for m in pair)
        assert (sheet[LINE : LINE + height, :height] == plain).all()
        assert (sheet[LINE : LINE + height, height + 6 :] == marked).all()


class TestPreview:
    def dataset(self, sample: Sample, augmentation=None, size=(SIZE, SIZE)) -> SegmentationDataset:
        preprocessing = Preprocessing(size, 3, (0.3, 0.4, 0.5), (0.2, 0.3, 0.1))
        cases = [sample.cases[name] for name in TRAIN[:2]]
        return SegmentationDataset(cases, preprocessing, sample.labels, augmentation, seed=4)

    def test_shows_what_the_training_gets_in_its_first_epochs(self, sample):
        colors = [(0, 0, 0), (0, 158, 115)]
        dataset = self.dataset(sample, recipe("flip"))
        plain = self.dataset(sample)
        sheet = draw_preview(dataset, 3, colors)
        side = LARGE_OBJECTS.height
        for epoch in (1, 2, 3):
            image, mask, _ = plain.pair(1)
            tensor = dataset[epoch, 1]
            flips = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
            fed = [
                flip
                for flip in flips
                if torch.equal(
                    plain.preprocessing.tensor(np.ascontiguousarray(flip)), tensor["image"]
                )
            ]
            assert len(fed) == 1
            expected = outlined(fed[0], tensor["mask"].numpy(), colors, side, 2)
            top, left = side + 2 * LINE + 12 + LINE, epoch * (side + 6)
            assert (sheet[top : top + side, left : left + side] == expected).all()
            assert mask.sum() == tensor["mask"].sum()

    def test_long_images_are_drawn_lower(self, sample):
        spoiled.long(sample)
        sample.cases["case_0"] = sample.cases["case_3"]
        height, width, _ = draw_preview(self.dataset(sample), 1, [(0, 0, 0), (9, 9, 9)]).shape
        assert width < 3.2 * LARGE_OBJECTS.height
        assert height < 2 * LARGE_OBJECTS.height + 100

    def test_small_objects_are_drawn_larger_and_finer(self):
        assert tiles_for(0.02) == SMALL_OBJECTS
        assert tiles_for(0.2) == LARGE_OBJECTS
        assert SMALL_OBJECTS.height > LARGE_OBJECTS.height
        assert SMALL_OBJECTS.thickness < LARGE_OBJECTS.thickness
