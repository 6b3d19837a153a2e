"""Which mask belongs to which image, by their names."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from medt.data.layout import listed
from medt.errors import UserError
from medt.io.files import IMAGE_EXTENSIONS, list_images
from medt.io.text import is_name

log = logging.getLogger("medt")

# What is put behind an image's name to name its mask, after "_", "-", "." or a space.
MASK_WORDS = (
    *("mask", "masks", "anno", "annotation", "annotations", "seg", "segmentation"),
    *("label", "labels", "gt", "groundtruth"),
)


def suffix_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Of the ends of names that consist of a separator and one of these words."""
    return re.compile(rf"[ _.-](?:{'|'.join(words)})$", re.IGNORECASE)


MASK_SUFFIX = suffix_pattern(MASK_WORDS)
# Image formats of which somebody may think that they are read.
OTHER_FORMATS = (".webp", ".jp2", ".heic", ".dcm", ".svs", ".ndpi", ".nii", ".mha", ".npy", ".czi")


def pair_files(
    images: Path, masks: Path, suffix: str | None = None
) -> dict[str, tuple[Path, Path]]:
    """Pair the files of a folder of images with those of a folder of masks.

    A mask has its image's name up to the extension, or that name and a suffix. Upper and lower case
    are the same, and so are the two ways in which Unicode writes letters with accents.

    Args:
        images, masks: the folders; where they are one, masks are the files with a suffix.
        suffix: of every mask, such as "_mask"; None knows ``MASK_WORDS``.

    Returns:
        Case, which is the image's name without extension -> image and mask, in natural order.

    Raises:
        UserError: no such folder, no images in it, or files without partner or with several. All
            are named.
    """
    pattern = MASK_SUFFIX if suffix is None else re.compile(re.escape(suffix) + "$", re.IGNORECASE)
    if images.is_dir() and masks.is_dir() and images.samefile(masks):
        every = _files(images, "images")
        mask_files = [path for path in every if _base(path, pattern) is not None]
        named = set(mask_files)
        image_files = [path for path in every if path not in named]
        _refuse_none(image_files, images, "images beside the masks")
        _refuse_none(mask_files, masks, f"masks among the images (named {_naming(suffix)})")
    else:
        image_files, mask_files = _files(images, "images"), _files(masks, "masks")
    faults: list[str] = []
    image_of: dict[str, Path] = {}
    for path in image_files:
        other = image_of.setdefault(_key(path.stem), path)
        if other is not path:
            faults.append(f"{images.name} has both {other.name} and {path.name}")
    mask_of: dict[str, Path] = {}
    stray = []
    for path in mask_files:
        key = _image_key(path, pattern, suffix, image_of)
        if key is None:
            stray.append(path.name)
        elif (other := mask_of.setdefault(key, path)) is not path:
            faults.append(f"{image_of[key].name} has the masks {other.name} and {path.name}")
    bare = [path.name for key, path in image_of.items() if key not in mask_of]
    faults += [f"images without mask ({len(bare)}): {', '.join(bare)}"] * bool(bare)
    faults += [f"masks without image ({len(stray)}): {', '.join(stray)}"] * bool(stray)
    if faults:
        raise UserError(
            f"{images} and {masks} do not pair up: {listed(faults, limit=None)}",
            "an image and its mask have the same name up to the extension, or the mask's ends with "
            + _naming(suffix),
        )
    return {
        unicodedata.normalize("NFC", path.stem).strip(): (path, mask_of[key])
        for key, path in image_of.items()
    }


def masks_by_image(
    images: Iterable[Path], masks: Iterable[Path], pattern: re.Pattern[str] = MASK_SUFFIX
) -> dict[Path, list[Path]]:
    """Which masks the names of files give to each image: none, one or several.

    Args:
        images, masks: files, of whose names the stems count, as in `pair_files`.
        pattern: of the suffixes.
    """
    found: dict[Path, list[Path]] = {path: [] for path in images}
    image_of = {_key(path.stem): path for path in found}
    for mask in masks:
        key = _image_key(mask, pattern, None, image_of)
        if key is not None:
            found[image_of[key]].append(mask)
    return found


def _files(folder: Path, kind: str) -> list[Path]:
    """The files of a folder of "images" or "masks"."""
    files = list_images(folder)
    unnamed = [path.name for path in files if not is_name(path.name)]
    if unnamed:
        raise UserError(
            f"{folder} has names that are no UTF-8 or hold control characters: {listed(unnamed)}",
            "rename them",
        )
    if files:
        _tell_of_others(folder)
    else:
        below = {
            path.parent for path in folder.rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS
        }
        others = {p.suffix.lower() for p in folder.iterdir()} & set(OTHER_FORMATS)
        if below:
            places = listed(str(path) for path in below)
            raise UserError(
                f"No {kind} in {folder} itself", f"they lie in {places}: give one of these"
            )
        found = f"; convert the {', '.join(sorted(others))} files" if others else ""
        raise UserError(f"No {kind} in {folder}", f"PNG, JPEG, BMP, TIFF and GIF are read{found}")
    return files


def _tell_of_others(folder: Path) -> None:
    """Say what of a folder is left out although it may be meant."""
    left = [p.name for p in folder.iterdir() if p.suffix.lower() in OTHER_FORMATS]
    left += [
        f"{p.name}/"
        for p in folder.iterdir()
        if p.is_dir() and not p.name.startswith(".")
        if any(q.suffix.lower() in IMAGE_EXTENSIONS for q in p.iterdir())
    ]
    if left:
        log.warning(f"warning: left out of {folder}: {listed(left)}")


def _refuse_none(files: Iterable[Path], folder: Path, what: str) -> None:
    if not any(True for _ in files):
        raise UserError(f"{folder} holds no {what}", "give dataset.mask_suffix, or two folders")


def _naming(suffix: str | None) -> str:
    return repr(suffix) if suffix else "one of _" + ", _".join(MASK_WORDS)


def _key(stem: str) -> str:
    return unicodedata.normalize("NFC", stem).strip().casefold()


def _base(path: Path, pattern: re.Pattern[str]) -> str | None:
    """The stem of a mask without its suffix; None where it has none."""
    match = pattern.search(path.stem)
    return path.stem[: match.start()] if match and match.start() > 0 else None


def _image_key(
    path: Path, pattern: re.Pattern[str], suffix: str | None, image_of: dict[str, Path]
) -> str | None:
    """The key of a mask's image; None where there is no such image."""
    base = _base(path, pattern)
    same_name = _key(path.stem)
    if suffix is None and same_name in image_of and image_of[same_name] != path:
        return same_name
    return _key(base) if base is not None and _key(base) in image_of else None
