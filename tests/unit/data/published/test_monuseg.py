"""The MoNuSeg archive as published becomes the layout on disk, or is refused."""

import zipfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from skimage.draw import polygon

from medt.data.layout import open_prepared, read_card
from medt.data.open import open_dataset, prepare_dataset
from medt.data.published.aperio import draw_instances, read_outlines
from medt.data.published.dataset import prepare
from medt.data.published.monuseg import MONUSEG, OFFICIAL_TEST, PAGE
from medt.data.splits import read_splits
from medt.errors import UserError
from medt.io.images import read_image, read_mask

COMMITTED = Path(__file__).parents[4] / "data" / "splits" / "monuseg.csv"
ROWS = {row.case: row for row in read_splits(COMMITTED)}
TRAIN = [name for name, row in ROWS.items() if row.split != "test"]
CASES = ("TCGA-18-5592-01Z-00-DX1", "TCGA-21-5784-01Z-00-DX1", "TCGA-21-5786-01Z-00-DX1")
SQUARE = ((2, 1), (6, 1), (6, 4), (2, 4))


def region(*vertices: tuple[float, float], **attributes: str) -> str:
    points = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in vertices)
    extra = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f'<Region Id="1" Type="0"{extra}><Vertices>{points}</Vertices></Region>'


def document(*regions: str) -> str:
    """Every region in a layer of its own, below the headers that ImageScope writes."""
    header = '<RegionAttributeHeaders><AttributeHeader Name="Region"/></RegionAttributeHeaders>'
    layers = (f"<Annotation><Regions>{header}{r}</Regions></Annotation>" for r in regions)
    return f"<Annotations>{''.join(layers)}</Annotations>"


def draw(*regions: str) -> tuple[list[list[int]], dict[str, int]]:
    """The instances on 8 x 6 pixels, and the counts above 0."""
    outlines = read_outlines(document(*regions).encode(), "a.xml")
    instances, kinds = draw_instances(outlines, (6, 8), "a.xml", "centres")
    assert instances.dtype == np.uint16
    return instances.tolist(), {kind: count for kind, count in kinds.items() if count}


def picture(text: str) -> list[list[int]]:
    return [[int(c) for c in line.strip().replace(".", "0")] for line in text.split()]


def write_case(folder: Path, name: str, *regions: str, flat: bool = False) -> None:
    images = folder if flat else folder / "Tissue Images"
    annotations = folder if flat else folder / "Annotations"
    images.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(
        0, 256, (6, 8, 3), dtype=np.uint8
    )
    tifffile.imwrite(images / f"{name}.tif", pixels, photometric="rgb")
    text = document(*(regions or (region(*SQUARE),)))
    (annotations / f"{name}.xml").write_text(text)


@pytest.fixture
def extracted(tmp_path: Path) -> Path:
    folder = tmp_path / "download" / "MoNuSeg 2018 Training Data"
    for name in CASES:
        write_case(folder, name)
    return folder


def zipped(folder: Path) -> Path:
    path = folder.parent.parent / "monuseg.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, f"{folder.name}/{file.relative_to(folder)}")
    return path


def test_a_square_is_the_pixels_whose_centres_it_encloses() -> None:
    expected = picture("........ ..1111.. ..1111.. ..1111.. ........ ........")
    assert draw(region(*SQUARE)) == (expected, {"nuclei": 1})
    assert draw(region(*SQUARE[::-1])) == (expected, {"nuclei": 1})
    near = [(x + 0.3, y - 0.4) for x, y in SQUARE]
    assert draw(region(*near))[0] == expected, "centres stay inside"
    far = [(x + 0.6, y) for x, y in SQUARE]
    assert draw(region(*far))[0] == picture("........ ...1111. ...1111. ...1111. ........ ........")


def test_a_triangle_with_vertices_between_pixels() -> None:
    # At the heights 0.5, 1.5, 2.5, 3.5 of the centres it ends at x = 3.75, 2.75, 1.75, 0.75.
    instances, _ = draw(region((0, 0), (4.25, 0), (0, 4.25)))
    assert instances == picture("1111.... 111..... 11...... 1....... ........ ........")


def test_touching_nuclei_keep_their_numbers_and_share_no_pixel() -> None:
    left, right = ((0, 0), (2.5, 0), (2.5, 3), (0, 3)), ((2.5, 0), (5, 0), (5, 3), (2.5, 3))
    instances, kinds = draw(region(*left), region(*right))
    assert instances == picture("11222... 11222... 11222... ........ ........ ........")
    assert kinds == {"nuclei": 2}


def test_where_outlines_overlap_the_first_wins() -> None:
    instances, kinds = draw(
        region(*SQUARE),
        region((3, 2), (5, 2), (5, 3), (3, 3)),  # wholly inside the first
        region((4, 2), (8, 2), (8, 6), (4, 6)),
    )
    assert instances == picture("........ ..1111.. ..111122 ..111122 ....2222 ....2222")
    assert kinds == {"nuclei": 2, "overlap an earlier one": 1, "hidden by earlier ones": 1}


def test_a_hole_clears_what_was_drawn_before_it() -> None:
    hole = region((3, 2), (5, 2), (5, 3), (3, 3), NegativeROA="1")
    instances, kinds = draw(region(*SQUARE, NegativeROA="0"), hole)
    assert instances == picture("........ ..1111.. ..1..1.. ..1111.. ........ ........")
    assert kinds == {"nuclei": 1, "cut out as holes": 1}
    inner = region((3, 2), (4, 2), (4, 3), (3, 3))
    assert draw(region(*SQUARE), hole, inner)[0][2] == [0, 0, 1, 2, 0, 1, 0, 0]
    erased, kinds = draw(region(*SQUARE), region(*SQUARE, NegativeROA="1"), inner)
    assert max(map(max, erased)) == kinds["nuclei"] == 1, "numbers have no gap"


def test_outlines_that_meet_themselves_are_filled() -> None:
    # At the heights 1.5, 2.5, 3.5, 4.5 either lobe is 1.25, 2.25, 1.75, 0.75 wide.
    instances, kinds = draw(region((0, 0.25), (5, 5.25), (5, 0.25), (0, 5.25)))
    assert instances == picture("........ 1...1... 11.11... 11.11... 1...1... ........")
    assert kinds == {"nuclei": 1, "cross or touch themselves": 1}

    twice_around = region(*SQUARE, *SQUARE)
    assert draw(twice_around)[0] == draw(region(*SQUARE))[0], "no hole where it winds twice"
    assert draw(twice_around)[1] == {"nuclei": 1, "cross or touch themselves": 1}
    overlapping_ends = region((1, 0), (6, 0), (6, 5), (3, 5), (3, 1), (5, 1), (5, 4), (1, 4))
    assert draw(overlapping_ends)[1]["cross or touch themselves"] == 1
    pinched = region((0, 0), (2, 2), (4, 0), (4, 4), (2, 2), (0, 4))
    assert draw(pinched)[1] == {"nuclei": 1, "cross or touch themselves": 1}
    closed = region(*SQUARE, SQUARE[0])
    assert draw(closed)[1] == {"nuclei": 1}, "a last vertex equal to the first only closes it"


def test_outlines_beyond_the_image_are_cut_or_left_out() -> None:
    instances, kinds = draw(
        region((-3, -2), (1, -2), (1, 2), (-3, 2)),
        region((6.5, 4), (900, 4), (900, 99), (6.5, 99)),
        region((-9, 1), (-1, 1), (-1, 3), (-9, 3)),
        region((2, 6), (4, 6), (4, 9), (2, 9)),
        region((-5, -5), (20, -5), (20, 0.4), (-5, 0.4)),
    )
    assert instances == picture("1....... 1....... ........ ........ ......22 ......22")
    assert kinds == {
        "nuclei": 2,
        "reach beyond the image": 2,
        "outside the image": 2,
        "without a pixel": 1,
    }
    corners = region((0, 0), (8, 0), (8, 6), (0, 6))
    assert draw(corners) == ([[1] * 8] * 6, {"nuclei": 1}), "the image's own border is inside"


@pytest.mark.parametrize(
    "vertices",
    [(), ((3, 3),), ((1, 1), (5, 5)), ((1, 1), (5, 5), (1, 1)), ((1, 1), (3, 3), (5, 5)),
     ((2.6, 2.6), (3.4, 2.6), (3.4, 3.4))],
)  # fmt: skip
def test_degenerate_outlines_are_left_out_and_counted(
    vertices: tuple[tuple[float, float], ...],
) -> None:
    instances, kinds = draw(region(*vertices), region((0, 0), (1, 0), (1, 1), (0, 1)))
    assert np.sum(instances) == 1
    assert kinds == {"nuclei": 1, "without a pixel": 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_doctype_is_refused_in_any_encoding(encoding: str) -> None:
    entity = '<!DOCTYPE Annotations [<!ENTITY a "<Region/>">]>'
    text = f'<?xml version="1.0" encoding="{encoding}"?>{entity}<Annotations>&a;</Annotations>'
    with pytest.raises(
        UserError, match=r"case\.xml is no readable annotation: .*DOCTYPE"
    ) as caught:
        read_outlines(text.encode(encoding), "case.xml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "<Annotations><Region>", '<?xml version="1.0" encoding="nope"?><a/>', '<?xml version="1.0"'
     ' encoding="utf-7"?><a/>', document("<Region><Vertices><Vertex X='1'/></Vertices></Region>"),
     document(region((1, 1), (float("nan"), 2))), document(region((1, 1), (1e9, 2))),
     document("<Region><Vertex X='one' Y='2'/></Region>")],
)  # fmt: skip
def test_unreadable_annotations_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"case\.xml is no readable annotation") as caught:
        read_outlines(text.encode(), "case.xml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("as_zip", [True, False])
def test_archive_and_folder_become_the_layout(
    extracted: Path, tmp_path: Path, as_zip: bool
) -> None:
    root = tmp_path / "data" / "monuseg"
    prepared = prepare(MONUSEG, zipped(extracted) if as_zip else extracted.parent, root, COMMITTED)
    assert prepared.counts == {"train": 2, "val": 1, "test": 0}
    assert not prepared.existed
    name = CASES[0]
    image = read_image(root / "images" / f"{name}.png")
    np.testing.assert_array_equal(image, read_image(extracted / "Tissue Images" / f"{name}.tif"))
    instances = read_mask(root / "instances" / f"{name}.png")
    assert instances.dtype == np.uint16
    assert instances.tolist() == draw(region(*SQUARE))[0]
    np.testing.assert_array_equal(read_mask(root / "masks" / f"{name}.png"), instances > 0)
    card = read_card(root)
    assert "CC BY-NC-SA 4.0" in card.licence
    assert "Kumar" in card.citation
    assert set(card.absent) == set(ROWS) - set(CASES)

    index = open_prepared(root, COMMITTED)
    assert [c.name for c in index.classes] == ["background", "nucleus"]
    assert [case.group for case in index.split("val")] == ["TCGA-18-5592"]
    assert [path.name for path in root.parent.iterdir()] == ["monuseg"], "nothing temporary stays"


def test_the_terminal_learns_what_is_missing_and_what_was_mended(
    extracted: Path, tmp_path: Path
) -> None:
    write_case(extracted, CASES[1], region(*SQUARE), region((0, 0), (4, 4), (4, 0), (0, 4)))
    write_case(extracted, CASES[2], region((-3, -2), (1, -2), (1, 2), (-3, 2)), region((1, 1)))
    root = tmp_path / "monuseg"
    summary = prepare(MONUSEG, extracted, root, COMMITTED).summary()
    assert "34 of the 37 training cases" in summary
    assert "14 of the 14 test cases" in summary
    assert "Nuclei: 4. Outlines left out: 1 without a pixel." in summary
    kept = "1 cross or touch themselves, 2 reach beyond the image, 1 overlap an earlier one"
    assert f"Of the outlines kept: {kept}." in summary
    again = prepare(MONUSEG, extracted, root, COMMITTED)
    assert again.existed
    assert kept in again.summary(), "counts are kept with the copy"


def test_the_official_test_lies_flat_and_is_only_ever_the_test(
    extracted: Path, tmp_path: Path
) -> None:
    for name in OFFICIAL_TEST:
        write_case(extracted.parent / "MoNuSegTestData", name, flat=True)
    prepared = prepare(MONUSEG, extracted.parent, tmp_path / "monuseg", tmp_path / "s.csv")
    assert prepared.counts == {"train": 2, "val": 1, "test": 14}
    assert "Missing" not in prepared.summary()
    index = open_prepared(tmp_path / "monuseg", tmp_path / "s.csv")
    assert {case.name for case in index.split("test")} == set(OFFICIAL_TEST)


def test_the_committed_split_is_what_all_training_cases_draw(tmp_path: Path) -> None:
    for name in TRAIN:
        write_case(tmp_path / "all", name)
    prepared = prepare(MONUSEG, tmp_path / "all", tmp_path / "monuseg", tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_bytes() == COMMITTED.read_bytes()
    assert prepared.counts == {"train": 30, "val": 7, "test": 0}


def test_the_committed_split_keeps_patients_apart() -> None:
    assert len(ROWS) == 37 + 14
    assert {name for name, row in ROWS.items() if row.split == "test"} == set(OFFICIAL_TEST)
    assert all(name.startswith(f"{row.group}-") for name, row in ROWS.items())
    assert all(len(row.group.split("-")) == 3 for row in ROWS.values())
    assert len({row.group for row in ROWS.values()}) == len(ROWS)


def test_a_complete_copy_is_recognised_and_a_damaged_one_made_again(
    extracted: Path, tmp_path: Path
) -> None:
    root = tmp_path / "monuseg"
    prepare(MONUSEG, extracted, root, COMMITTED)
    assert "was already prepared" in prepare(MONUSEG, extracted, root, COMMITTED).summary()
    (root / "masks" / f"{CASES[1]}.png").unlink()
    assert not prepare(MONUSEG, extracted, root, COMMITTED).existed
    assert prepare(MONUSEG, extracted, root, COMMITTED).existed
    write_case(extracted, OFFICIAL_TEST[0])
    fuller = prepare(MONUSEG, extracted, root, COMMITTED)
    assert not fuller.existed, "a fuller archive replaces a poorer copy"
    assert fuller.counts["test"] == 1


def test_faulty_archives_are_refused_and_leave_nothing(extracted: Path, tmp_path: Path) -> None:
    root = tmp_path / "monuseg"

    def refused(source: Path, message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            prepare(MONUSEG, source, root, COMMITTED)
        assert "\n" not in str(caught.value)
        assert not root.exists()

    refused(tmp_path / "absent.zip", "No archive")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", f"holds no MoNuSeg image .*{PAGE}")
    (tmp_path / "broken.zip").write_bytes(zipped(extracted).read_bytes()[:500])
    refused(tmp_path / "broken.zip", r"broken\.zip is no readable zip")

    (extracted / "Annotations" / f"{CASES[0]}.xml").unlink()
    (extracted / "Annotations" / f"{CASES[1]}.xml").unlink()
    (extracted / "Tissue Images" / f"{CASES[2]}.tif").unlink()
    refused(extracted, rf"lacks {CASES[0]}\.xml; {CASES[1]}\.xml; {CASES[2]}\.tif")
    for name in CASES:
        write_case(extracted, name)
    (extracted / "Tissue Images" / f"{CASES[2]}.tif").write_bytes(b"II*\0")
    refused(extracted, rf"{CASES[2]}\.tif cannot be decoded")
    write_case(extracted, CASES[2], region((90, 90), (95, 90), (95, 95)))
    refused(extracted, rf"{CASES[2]}\.xml outlines no nucleus")
    write_case(extracted, CASES[2])
    write_case(extracted, "TCGA-00-0000-01Z-00-DX1")
    refused(extracted, r"monuseg\.csv has no row for TCGA-00-0000-01Z-00-DX1")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_of_other_things_is_not_replaced(extracted: Path, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    (root / "thesis.txt").touch()
    with pytest.raises(UserError, match="is no prepared dataset"):
        prepare(MONUSEG, extracted, root, COMMITTED)
    assert (root / "thesis.txt").exists()


def test_settings_name_the_paths_and_errors_the_page(extracted: Path, tmp_path: Path) -> None:
    root = tmp_path / "monuseg"
    settings = {"name": "monuseg", "root": str(root), "splits_file": str(COMMITTED)}
    with pytest.raises(UserError, match=f"needs its archive .*{PAGE}"):
        prepare_dataset(settings)
    with pytest.raises(UserError, match=f"{PAGE} .*prepare_data.py dataset=monuseg source="):
        open_dataset(settings)
    assert prepare_dataset(settings, extracted).counts["train"] == 2
    assert len(open_dataset(settings).cases) == 3


def test_the_real_archive(shared: Path, tmp_path: Path) -> None:
    archive = shared / "data" / "monuseg_2018_train_part.zip"
    prepared = prepare(MONUSEG, archive, tmp_path / "monuseg", COMMITTED)
    assert prepared.counts == {"train": 10, "val": 3, "test": 0}
    assert "Nuclei: 4948. Outlines left out: 3 without a pixel." in prepared.summary()
    with zipfile.ZipFile(archive) as file:
        annotations = {Path(n).stem: file.read(n) for n in file.namelist() if n.endswith(".xml")}
    overlaps: list[float] = []
    for case in open_prepared(tmp_path / "monuseg", COMMITTED).cases[::4]:
        assert case.instances is not None
        instances = read_mask(case.instances)
        assert instances.shape == (1000, 1000)
        assert np.unique(instances).tolist() == list(range(instances.max() + 1))
        overlaps += agreement(instances, annotations[case.name])
    assert len(overlaps) > 1000
    assert np.median(overlaps) > 0.99
    assert np.quantile(overlaps, 0.05) > 0.9


def agreement(instances: np.ndarray, annotation: bytes) -> list[float]:
    """IoU of each outline, filled by scikit-image, with the object that it shares most with."""
    found = []
    areas = np.bincount(instances.ravel())
    for vertex in ElementTree.fromstring(annotation).iter("Vertices"):
        x, y = np.array([[float(v.get("X")), float(v.get("Y"))] for v in vertex]).T
        rows, columns = polygon(
            y - 0.9999, x - 0.9999, instances.shape
        )  # its centres are at 0, 1, ...
        shared = np.bincount(instances[rows, columns], minlength=2)
        shared[0] = 0
        number = shared.argmax()
        if len(x) > 2:
            found.append(shared[number] / (len(rows) + areas[number] - shared[number]))
    return found
