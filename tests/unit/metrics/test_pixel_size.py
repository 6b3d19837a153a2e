"""Pixel sizes as people write them, and what is none."""

from __future__ import annotations

import pytest

from medt.errors import UserError
from medt.metrics.pixel_size import PIXELS, PixelSize, distance_of_offset


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.25, PixelSize(0.25, 0.25, "um")),
        (1, PixelSize(1, 1, "um")),
        ("0.1mm", PixelSize(0.1, 0.1, "mm")),
        ("0.25um", PixelSize(0.25, 0.25, "um")),
        ("0.25 um", PixelSize(0.25, 0.25, "um")),
        ("0.25µm", PixelSize(0.25, 0.25, "um")),  # the micro sign
        ("0.25μm", PixelSize(0.25, 0.25, "um")),  # the Greek letter
        ("4nm", PixelSize(4, 4, "nm")),
        (".5mm", PixelSize(0.5, 0.5, "mm")),
        ("1e-3mm", PixelSize(0.001, 0.001, "mm")),
        (["0.1mm", "0.2mm"], PixelSize(0.1, 0.2, "mm")),
        ([0.5, 0.25], PixelSize(0.5, 0.25, "um")),
        ([0.5, "0.25um"], PixelSize(0.5, 0.25, "um")),
        ("px", PIXELS),
        (None, PIXELS),
        (PixelSize(2, 3, "nm"), PixelSize(2, 3, "nm")),
    ],
)
def test_is_read_as_people_write_it(value, expected):
    assert PixelSize.of(value) == expected


@pytest.mark.parametrize(
    ("size", "value", "expected"),
    [
        ("0.25um", None, 2),
        ("0.1mm", None, 0.2),  # two pixels
        ("px", None, 2),
        ("0.1mm", 0.5, 0.5),
        ("0.1mm", 0, 0),
        ("0.1mm", "500um", 0.5),
        ("0.25um", "0.001mm", 1),
        ("4nm", "0.1um", 100),
        ("px", "3px", 3),
        ("0.1mm", "3px", 0.3),
        (["0.1mm", "0.4mm"], "3px", 0.6),  # of the square of the same area
    ],
)
def test_distances_come_in_its_unit(size, value, expected):
    assert PixelSize.of(size).distance(value, "tolerance") == pytest.approx(expected)


@pytest.mark.parametrize("value", ["2cm", "px", "-1px", "mm", -1, float("nan"), True, [2], {}])
def test_what_is_no_distance_is_refused(value):
    with pytest.raises(UserError, match=r"tolerance=.* is no distance \(give a number \(millim"):
        PixelSize.of("0.1mm").distance(value, "tolerance")


def test_a_length_needs_a_pixel_size():
    with pytest.raises(UserError, match=r"tolerance=1mm, but the size of a pixel is not known"):
        PIXELS.distance("1mm", "tolerance")


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, True, float("nan"), float("inf"), 10**400, "0.5", "0mm", "-1mm", "1e9mm", "5cm"),
        *(
            "mm",
            "",
            "1 2mm",
            "٣mm",
            "2px",
            [],
            [1],
            [1, 2, 3],
            ["px", "px"],
            [None, 1],
            {},
            [[1], 2],
        ),
    ],
    ids=lambda value: str(value)[:9],
)
def test_anything_else_is_refused_in_one_line_by_its_key(value):
    with pytest.raises(UserError, match=r"dataset\.pixel_size=.* cannot be used") as raised:
        PixelSize.of(value, "dataset.pixel_size")
    assert "0.25um" in str(raised.value)
    assert len(str(raised.value)) < 300


def test_two_units_are_refused():
    with pytest.raises(UserError, match="mixes units"):
        PixelSize.of(["1mm", "1um"])


def test_says_what_it_is():
    assert str(PixelSize.of(0.62005)) == "0.62005um"
    assert str(PixelSize.of(["0.1mm", "0.2mm"])) == "[0.1mm,0.2mm]"
    assert str(PIXELS) == "px"
    for text in ("0.62005um", "3nm", "px"):
        assert str(PixelSize.of(text)) == text
    assert PixelSize.of("0.5mm").plain == 0.5
    assert PixelSize.of(["0.5mm", "1mm"]).plain == [0.5, 1]
    assert PIXELS.plain is None


def test_areas_and_ways_are_over_height_and_width():
    size = PixelSize.of(["0.5um", "0.25um"])
    assert size.area == 0.125
    assert size.of_area == "um2"
    assert distance_of_offset(6, 16, size.spacing) == 5  # 3 down, 4 to the right
