"""A folder of pictures, at any depth; the first folder of a path is its field "folder"."""

from __future__ import annotations

from pathlib import Path

from sfumato.core.errors import InvalidRequest
from sfumato.data.readers import PICTURES, Picture, PictureSource, inside, listed

SUMMARY = "a folder of pictures, at any depth"
NEEDS = ()
EXTRA = ""


def reads(path: Path) -> bool:
    """Return whether the path is a folder."""
    return path.is_dir()


def build() -> ImageFolder:
    """Build the reader."""
    return ImageFolder()


class ImageFolder:
    """Reads a folder of pictures."""

    def open(self, path: Path) -> PictureSource:
        """List the pictures; hidden files, links out of the folder and other files are left out.

        Raises:
            InvalidRequest: no folder, or no picture in it.
        """
        if not path.is_dir():
            raise InvalidRequest(f"{path} is not a folder")
        found, left_out = [], []
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path).as_posix()
            if file.is_dir() or any(part.startswith(".") for part in name.split("/")):
                continue
            if file.suffix.lower() not in PICTURES:
                left_out.append((name, "not a picture"))
            elif inside(path, name) is None:
                left_out.append((name, "a link out of the folder"))
            else:
                fields = {"path": name} | ({"folder": name.split("/")[0]} if "/" in name else {})
                found.append(Picture(name, file, fields))
        return listed(found, left_out, path)
