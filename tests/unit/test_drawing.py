"""Drawings: outlines that lie inside, tints that leave the background alone, sizes that fit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medt.data.layout import default_classes
from medt.drawing import contact_sheet, displayable, fill, outline, outlined, overlay, panel

COLORS = [(0, 0, 0), (200, 40, 0), (0, 0, 220)]


def square(size=12, value=1):
    mask = np.zeros((size, size), np.uint8)
    mask[3:9, 3:9] = value
    return mask


class TestOutline:
    def test_is_the_inner_border_of_a_region(self):
        line = outline(square())
        expected = square().astype(bool)
        expected[4:8, 4:8] = False
        np.testing.assert_array_equal(line, expected)

    def test_separates_touching_instances(self):
        mask = np.ones((4, 6), np.uint8)
        mask[:, 3:] = 2
        columns = [False, False, True, True, False, False]
        np.testing.assert_array_equal(outline(mask), [columns] * 4)

    def test_of_a_thick_line_stays_inside(self):
        thick = outline(square(), thickness=2)
        assert thick.sum() == 36 - 4
        assert not thick[square() == 0].any()

    @pytest.mark.parametrize("mask", [np.zeros((5, 5), int), np.ones((5, 5), int)])
    def test_of_one_region_without_a_neighbour_is_empty(self, mask):
        assert not outline(mask).any()

    def test_does_not_go_around_ignored_pixels(self):
        assert not outline(square(value=255)).any()

    def test_takes_instance_ids_above_255(self):
        assert outline(square().astype(np.uint16) * 300).sum() == 20


class TestDisplayable:
    def test_repeats_grey(self):
        grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
        for image in (grey, grey[..., None]):
            np.testing.assert_array_equal(displayable(image), np.dstack([grey] * 3))

    def test_shows_the_first_three_of_many_channels(self):
        image = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
        np.testing.assert_array_equal(displayable(image), image[..., :3])

    def test_shows_the_mean_of_two_channels(self):
        image = np.dstack([np.full((2, 2), 10, np.uint8), np.full((2, 2), 30, np.uint8)])
        assert np.all(displayable(image) == 20)

    def test_stretches_other_types(self):
        image = np.array([[-1.0, 0.0], [1.0, np.nan]])
        assert displayable(image)[..., 0].tolist() == [[0, 128], [255, 0]]

    def test_survives_a_flat_image(self):
        assert np.all(displayable(np.full((2, 2), 0.7)) == 0)


class TestFill:
    def test_paints_each_class_in_its_colour_and_ignored_pixels_grey(self):
        painted = fill(np.array([[0, 1], [2, 255]]), COLORS)
        assert painted.tolist() == [
            [[0, 0, 0], [200, 40, 0]],
            [[0, 0, 220], [128, 128, 128]],
        ]

    def test_refuses_a_class_without_colour(self):
        with pytest.raises(ValueError, match=r"\[7\]"):
            fill(np.array([[7]]), COLORS)


class TestOverlay:
    def test_draws_lines_in_the_class_colour_and_tints_the_inside(self):
        image = np.full((12, 12, 3), 100, np.uint8)
        drawn = overlay(image, square(), COLORS, opacity=0.5)
        assert drawn[3, 3].tolist() == [200, 40, 0]
        assert drawn[5, 5].tolist() == [150, 70, 50]

    def test_leaves_the_background_but_for_the_rim(self):
        image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        drawn = overlay(image, square(), COLORS)
        far = np.ones((12, 12), bool)
        far[2:10, 2:10] = False
        np.testing.assert_array_equal(drawn[far], image[far])
        assert np.all(drawn[2, 3:9] == 255)

    def test_greys_what_is_ignored_and_draws_no_line_around_it(self):
        image = np.full((12, 12, 3), (100, 20, 240), np.uint8)
        mask = square()
        mask[:, 6:] = 255
        drawn = overlay(image, mask, COLORS)
        assert np.all(drawn[:, 6:] == (114, 74, 184))  # half of the image, half of grey
        assert drawn[5, 3].tolist() == [200, 40, 0]
        np.testing.assert_array_equal(drawn[0, :6], image[0, :6])

    def test_outlines_each_object_with_its_number_inside(self):
        image = np.full((80, 160, 3), 100, np.uint8)
        mask = np.ones((80, 160), np.uint8)
        objects = np.full((80, 160), 254)
        objects[:, 80:] = 255  # an object as any other
        drawn = overlay(image, mask, COLORS, objects=objects)
        plain = overlay(image, mask, COLORS)
        changed = np.any(drawn != plain, axis=2)
        assert np.all(drawn[[0, 79], 79:81] == COLORS[1])  # where they meet
        for half in (changed[:, 4:76], changed[:, 84:156]):
            rows, columns = np.nonzero(half)
            assert abs(rows.mean() - 40) < 3
            assert abs(columns.mean() - 36) < 3
        assert not np.array_equal(drawn[20:60, 10:70], drawn[20:60, 90:150])  # 254 and 255

    def test_greys_what_is_ignored_beside_objects_as_beside_classes(self):
        mask = np.ones((40, 40), np.uint8)
        mask[:, 20:] = 255
        image = np.full((40, 40, 3), 100, np.uint8)
        drawn = overlay(image, mask, COLORS, objects=(mask == 1).astype(np.int32))
        plain = overlay(image, mask, COLORS)
        np.testing.assert_array_equal(drawn[[0, 39]], plain[[0, 39]])
        np.testing.assert_array_equal(drawn[:, 20:], plain[:, 20:])

    @pytest.mark.parametrize("place", [np.s_[:4, :4], np.s_[60:, 60:], np.s_[28:32, :3]])
    def test_numbers_of_objects_at_the_edge_are_whole(self, place):
        image = np.full((64, 64, 3), 100, np.uint8)
        mask, inner = np.zeros((2, 64, 64), np.int32)
        mask[place], inner[30:34, 30:34] = 123, 123
        edge = overlay(image, mask > 0, COLORS, objects=mask)
        middle = overlay(image, inner > 0, COLORS, objects=inner)
        dark = [int((picture.max(axis=2) < 40).sum()) for picture in (edge, middle)]
        assert dark[0] == pytest.approx(dark[1], abs=12)  # the rims of the digits

    def test_the_number_of_a_long_object_is_in_its_middle(self):
        image = np.full((64, 200, 3), 100, np.uint8)
        mask = np.zeros((64, 200), np.uint8)
        mask[20:40, 40:160] = 1
        drawn = overlay(image, mask, COLORS, objects=mask)
        changed = np.nonzero((drawn != overlay(image, mask, COLORS)).any(axis=2))
        assert [round(axis.mean()) for axis in changed] == pytest.approx([30, 100], abs=4)

    @pytest.mark.parametrize(("side", "thickness"), [(16, 1), (300, 2)])
    def test_draws_thin_lines_around_small_objects(self, side, thickness):
        image = np.full((512, 512, 3), 100, np.uint8)
        mask = np.zeros((512, 512), np.uint8)
        mask[20 : 20 + side, 20 : 20 + side] = 1
        drawn = overlay(image, mask, COLORS, objects=mask)
        across = (drawn[22, 20:26] == COLORS[1]).all(axis=1)  # above the number
        assert across.sum() == thickness

    def test_numbers_nothing_where_nothing_is(self):
        image = np.full((12, 12, 3), 100, np.uint8)
        empty = np.zeros((12, 12), np.uint8)
        np.testing.assert_array_equal(overlay(image, empty, COLORS, objects=empty), image)

    def test_does_not_change_its_arguments(self):
        image, mask = np.full((12, 12, 3), 100, np.uint8), square()
        overlay(image, mask, COLORS)
        assert np.all(image == 100)
        np.testing.assert_array_equal(mask, square())

    def test_refuses_a_mask_of_another_size(self):
        with pytest.raises(ValueError, match="its mask"):
            overlay(np.zeros((4, 4, 3), np.uint8), square(), COLORS)


GROUNDS = {
    "black": np.zeros((64, 64, 3), np.uint8),
    "white": np.full((64, 64, 3), 255, np.uint8),
    "grey": np.full((64, 64, 3), 128, np.uint8),
    "green": np.full((64, 64, 3), (0, 158, 115), np.uint8),
    "ultrasound": np.random.default_rng(0).gamma(0.8, 30, (64, 64, 1)).clip(0, 255),
    "noise": np.random.default_rng(1).integers(0, 256, (64, 64, 3)),
}
PALETTE = [c.color for c in default_classes([str(i) for i in range(9)])]


def luminance(picture):
    return picture @ np.array([0.299, 0.587, 0.114])


def least_contrast(drawn, line, reach):
    """The least range of luminance around a pixel of the line; 0..255."""
    shades, kernel = luminance(drawn), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return (cv2.dilate(shades, kernel) - cv2.erode(shades, kernel))[line].min()


class TestContrastOfOutlines:
    @pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
    @pytest.mark.parametrize("number", range(1, 9))
    @pytest.mark.parametrize("thickness", [1, 2, 5])
    def test_is_there_in_every_colour_on_any_ground(self, ground, number, thickness):
        image = np.broadcast_to(ground, (64, 64, 3)).astype(np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        cv2.ellipse(mask, (32, 30), (20, 14), 30, 0, 360, number, -1)
        drawn = outlined(image, mask, PALETTE, height=64, thickness=thickness)
        line = outline(mask, thickness)
        assert np.all(drawn[line] == PALETTE[number])
        assert least_contrast(drawn, line, thickness) >= 90

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=3, max_size=3),
        st.integers(0, 1000),
        st.integers(1, 3),
    )
    def test_is_there_for_colours_and_grounds_of_any_kind(self, colors, seed, thickness):
        rng = np.random.default_rng(seed)
        image = np.broadcast_to(rng.integers(0, 256, 3), (64, 64, 3)).astype(np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        for number in (1, 2):
            x, y = (int(n) for n in rng.integers(16, 48, 2))
            cv2.circle(mask, (x, y), 13, number, -1)
        drawn = outlined(image, mask, colors, height=64, thickness=thickness)
        assert least_contrast(drawn, outline(mask, thickness), 2 * thickness) >= 120

    def test_is_there_where_classes_touch(self):
        mask = np.ones((30, 30), np.uint8)
        mask[:, 15:] = 2
        drawn = outlined(np.zeros((30, 30, 3), np.uint8), mask, [(0, 0, 0)] * 3, 30, 1)
        assert np.all(drawn[:, [13, 16]] == 255)
        assert np.all(drawn[:, [14, 15]] == 0)
        assert np.all(drawn[:, :13] == 0)

    def test_leaves_the_inside_alone_where_there_is_room_outside(self):
        image = np.full((12, 12, 3), 100, np.uint8)
        drawn = outlined(image, square(), COLORS, height=12, thickness=1)
        assert np.all(drawn[4:8, 4:8] == 100)


class TestPanel:
    IMAGE = np.full((12, 24, 3), 100, np.uint8)
    MASK = np.hstack([square(), np.zeros((12, 12), np.uint8)])

    def test_holds_image_truth_and_prediction_in_this_order(self):
        drawn = panel(self.IMAGE, self.MASK, 2 * self.MASK, COLORS, height=120)
        tile = 240
        assert drawn.shape[1] == 3 * tile + 2 * 6
        inside = (60, 60)
        assert drawn[inside].tolist() == [100, 100, 100]
        assert drawn[60, 60 + tile + 6].tolist() == list(COLORS[1])
        assert drawn[60, 60 + 2 * (tile + 6)].tolist() == list(COLORS[2])

    def test_without_truth_has_two_tiles(self):
        drawn = panel(self.IMAGE, None, self.MASK, COLORS, height=120)
        assert drawn.shape[1] == 2 * 240 + 6
        assert drawn[60, 60 + 246].tolist() == list(COLORS[1])

    def test_shows_what_is_missed_as_a_white_line(self):
        drawn = panel(self.IMAGE, self.MASK, np.zeros_like(self.MASK), COLORS, height=120)
        prediction = drawn[:120, -240:]
        assert prediction[60, 30].tolist() == [255, 255, 255]
        assert prediction[60, 60].tolist() == [0, 0, 0]

    def test_is_grey_in_every_tile_where_the_truth_is_ignored(self):
        truth = self.MASK.copy()
        truth[:, 12:] = 255
        drawn = panel(self.IMAGE, truth, np.ones_like(truth), COLORS, height=120)
        tiles = [drawn[60, 200 + i * 246].tolist() for i in range(3)]
        assert tiles == [[114] * 3, [128] * 3, [128] * 3]

    def test_writes_the_caption_above(self):
        plain = panel(self.IMAGE, self.MASK, self.MASK, COLORS)
        titled = panel(self.IMAGE, self.MASK, self.MASK, COLORS, caption="case 7, Dice 1.00")
        above = titled.shape[0] - plain.shape[0]
        np.testing.assert_array_equal(titled[above:], plain)
        assert titled[:above].min() < 128

    def test_cuts_a_caption_that_is_too_long(self):
        drawn = panel(self.IMAGE, None, self.MASK, COLORS, caption="x" * 500, height=64)
        assert drawn.shape[1] == 2 * 128 + 6


class TestContactSheet:
    def test_puts_panels_of_any_size_into_rows_on_white(self):
        black, small = np.zeros((10, 20, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)
        sheet = contact_sheet([black, small, small], columns=2)
        assert sheet.shape == (10 + 12 + 4, 20 + 18 + 6, 3)
        assert (sheet == 0).all(axis=2).sum() == 200 + 24 + 24
        assert sheet[-1, -1].tolist() == [255, 255, 255]

    def test_needs_a_panel_and_a_column(self):
        with pytest.raises(ValueError, match="0 panels"):
            contact_sheet([])
        with pytest.raises(ValueError, match="0 columns"):
            contact_sheet([np.zeros((2, 2, 3), np.uint8)], columns=0)
