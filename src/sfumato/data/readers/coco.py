"""COCO: one JSON file with images, annotations and categories, and the pictures beside it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato.core.errors import InvalidRequest
from sfumato.data.readers import Picture, PictureSource, inside, listed

SUMMARY = "COCO annotations (JSON) and their pictures"
NEEDS = ()
EXTRA = ""

#: Where the pictures of annotations.json are looked for, from its own folder.
FOLDERS = (".", "images", "../images")


def reads(path: Path) -> bool:
    """Return whether the path is named like JSON."""
    return path.is_file() and path.suffix.lower() == ".json"


def build() -> Coco:
    """Build the reader."""
    return Coco()


class Coco:
    """Reads COCO detection, segmentation and keypoint files."""

    def open(self, path: Path) -> PictureSource:
        """Read the JSON and find the pictures.

        Fields: those of an image (`width`, `date_captured`, ...) by their own names, those of an annotation
        as `annotation.bbox`, ...; `annotation.category` is the category's name.

        Raises:
            InvalidRequest: not COCO, an id that leads nowhere, or a picture that is missing.
        """
        data = _read(path)
        names = {one["id"]: str(one["name"]) for one in data["categories"]}
        marks: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        images = {one["id"]: one for one in data["images"]}
        if len(images) < len(data["images"]):
            raise InvalidRequest(f"{path}: two images have the same id")
        for one in data["annotations"]:
            category = one.get("category_id")
            known = category is None or (isinstance(category, (int, str)) and category in names)
            if one["image_id"] not in images or not known:
                raise InvalidRequest(
                    f"{path}: annotation {one.get('id')!r} names an image or category that is not there"
                )
            marks[one["image_id"]].append(_annotation(one, names))
        root = _root(path, data["images"])
        found = []
        for key, one in images.items():
            name = str(one["file_name"])
            file = inside(root, name)
            if file is None:
                raise InvalidRequest(f"{path}: the picture {name!r} is not in {root}, or leads out of it")
            clean = file.relative_to(root).as_posix()
            fields = {field: value for field, value in one.items() if field not in ("id", "file_name")}
            found.append(Picture(clean, file, {"path": clean} | fields, tuple(marks[key])))
        return listed(found, (), path)


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} does not read as JSON ({type(error).__name__})") from error
    needed = {"images": ("id", "file_name"), "annotations": ("image_id",), "categories": ("id", "name")}
    if not isinstance(data, dict) or "images" not in data:
        raise InvalidRequest(f"{path} is not COCO: it has no list of images")
    result = {}
    for part, keys in needed.items():
        rows = data.get(part, [])
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and all(isinstance(row.get(key), (int, str)) for key in keys)
            for row in rows
        ):
            raise InvalidRequest(
                f"{path} is not COCO: {part} must be a list of objects with {', '.join(keys)}"
            )
        result[part] = rows
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _annotation(one: Mapping[str, Any], names: Mapping[Any, str]) -> dict[str, Any]:
    fields = {
        f"annotation.{field}": value
        for field, value in one.items()
        if field not in ("id", "image_id", "category_id")
    }
    if one.get("category_id") is not None:
        fields["annotation.category"] = names[one["category_id"]]
    return fields


def _root(path: Path, images: list[dict[str, Any]]) -> Path:
    """Return the folder that the pictures are named from."""
    folders = [path.parent / name for name in (*FOLDERS, path.stem.removeprefix("instances_"))]
    for folder in folders:
        if images and inside(folder, str(images[0]["file_name"])) is not None:
            return folder
    looked = ", ".join(str(folder) for folder in folders)
    raise InvalidRequest(f"{path}: its first picture is in none of {looked}")
