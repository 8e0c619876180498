"""YOLO: a data.yaml with splits and class names, pictures, and a .txt of labels beside each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sfumato.core.errors import InvalidRequest
from sfumato.data.readers import PICTURES, Picture, PictureSource, inside, listed

SUMMARY = "a YOLO dataset: data.yaml, pictures and labels"
NEEDS = ("yaml",)
EXTRA = "data"

SPLITS = ("train", "val", "test")


def reads(path: Path) -> bool:
    """Return whether the path is YAML, or a folder with a data.yaml."""
    return (path.is_file() and path.suffix.lower() in (".yaml", ".yml")) or (path / "data.yaml").is_file()


def build() -> Yolo:
    """Build the reader."""
    return Yolo()


class Yolo:
    """Reads YOLO datasets: boxes, polygons and keypoints."""

    def open(self, path: Path) -> PictureSource:
        """Read the YAML and the labels.

        Fields: `split`, `annotation.category` (the class's name), `annotation.box` (centre x, centre y,
        width, height as shares of the picture), or `annotation.points` where a label has more numbers.

        Raises:
            InvalidRequest: not a YOLO dataset, a label that does not read, or a path that leads out of it.
        """
        file = path / "data.yaml" if path.is_dir() else path
        data = _read(file)
        names = _names(data.get("names"), file)
        root = (file.parent / str(data.get("path") or ".")).resolve()
        if not root.is_dir():
            root = file.parent.resolve()
        if not root.is_relative_to(file.parent.resolve()):
            raise InvalidRequest(
                f"{file}: its path, {str(data['path'])!r}, leads out of the folder that it lies in, and "
                "nobody named that one: put the file into the dataset's folder and take path out of it"
            )
        found: dict[str, Picture] = {}
        left_out = []
        for split in SPLITS:
            for picture in _pictures(root, data.get(split), file):
                name = picture.relative_to(root).as_posix()
                if picture.suffix.lower() not in PICTURES:
                    left_out.append((name, "not a picture"))
                    continue
                if name in found:
                    raise InvalidRequest(f"{file}: {name!r} is in two splits")
                marks = tuple(_labels(_label_file(root, name), names))
                found[name] = Picture(name, picture, {"path": name, "split": split}, marks)
        return listed(found.values(), left_out, path)

    def names(self, path: Path) -> dict[int, str]:
        """Return the classes of the YAML: number -> name.

        Raises:
            InvalidRequest: not a YOLO dataset.
        """
        file = path / "data.yaml" if path.is_dir() else path
        return _names(_read(file).get("names"), file)


def _read(file: Path) -> Mapping[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InvalidRequest(f"{file} does not read as YAML ({type(error).__name__})") from error
    if not isinstance(data, dict) or not any(split in data for split in SPLITS):
        raise InvalidRequest(f"{file} is not a YOLO dataset: it names none of {', '.join(SPLITS)}")
    return data


def _names(names: Any, file: Path) -> dict[int, str]:
    if isinstance(names, list):
        return {index: str(name) for index, name in enumerate(names)}
    if isinstance(names, dict) and all(isinstance(key, int) for key in names):
        return {key: str(name) for key, name in names.items()}
    raise InvalidRequest(f"{file}: names must be a list, or a table from number to name")


def _pictures(root: Path, entry: Any, file: Path) -> Iterator[Path]:
    """Yield the files of one split: of folders, or of text files that list pictures."""
    for one in entry if isinstance(entry, list) else [entry] if entry else []:
        place = root / str(one)
        if not place.exists() and str(one).startswith("../"):
            place = root / str(one)[3:]  # as exporters write it, meaning a folder beside data.yaml
        if not place.exists() or not place.resolve().is_relative_to(root):
            raise InvalidRequest(f"{file}: {str(one)!r} is missing, or leads out of {root}")
        place = place.resolve()
        if place.is_dir():
            names = [p.relative_to(root).as_posix() for p in sorted(place.rglob("*")) if p.is_file()]
            names = [name for name in names if not name.rsplit("/", 1)[-1].startswith(".")]
        else:
            base = place.parent.relative_to(root)
            lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
            names = [(base / line).as_posix() if line.startswith("./") else line for line in lines]
        for name in names:
            if inside(root, name) is None:
                raise InvalidRequest(f"{file}: the picture {name!r} is missing, or leads out of {root}")
            yield (root / name)


def _label_file(root: Path, name: str) -> Path | None:
    """Return the labels of a picture: the last "images" of its path becomes "labels"."""
    parts = list(Path(name).with_suffix(".txt").parts)
    at = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if at:
        parts[at[-1]] = "labels"
    return inside(root, "/".join(parts))


def _labels(file: Path | None, names: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    if file is None:
        return  # a picture with nothing in it has no label file
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the labels {file} do not read ({type(error).__name__})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            kind, *values = [float(part) for part in line.split()]
            if len(values) < 4 or not all(math.isfinite(value) for value in values):
                raise ValueError
            category = names[int(kind)]
        except (ValueError, KeyError, OverflowError) as error:
            raise InvalidRequest(
                f"{file}, line {number}: a label is a class number of data.yaml and at least four numbers"
            ) from error
        yield {
            "annotation.category": category,
            ("annotation.box" if len(values) == 4 else "annotation.points"): values,
        }
