"""Readers: what a dataset looks like on disk; one file each, found by name.

A reader module has the four things of a plugin, and `reads(path)`: whether this is its kind of path, told
without importing anything heavy.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sfumato.core.errors import InvalidRequest
from sfumato.core.plugins import Catalogue

if TYPE_CHECKING:
    import pyarrow as pa

CATALOGUE = Catalogue("reader", "sfumato.data.readers", "sfumato.readers")

PICTURES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".hif",
        ".avif",
    ]
)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture that a reader found.

    Args:
        path: inside the dataset, with forward slashes.
        file: where it lies.
        fields: its own metadata by field name; "path" is always one of them.
        annotations: what is marked in it; their fields carry the prefix "annotation.".
    """

    path: str
    file: Path
    fields: Mapping[str, Any] = field(default_factory=dict)
    annotations: tuple[Mapping[str, Any], ...] = ()


@runtime_checkable
class TableSource(Protocol):
    """A table that was looked at and not yet read."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Everything that could be kept."""
        ...

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """Files that are not part of it, each with the reason."""
        ...

    def load(self, columns: Sequence[str], as_text: Collection[str]) -> pa.Table:
        """Read these columns only, in this order; those in `as_text` exactly as they are spelled.

        Raises:
            InvalidRequest: it does not read; says where, and holds no value.
        """
        ...


@runtime_checkable
class PictureSource(Protocol):
    """Pictures that were listed and not yet read."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Everything that could be kept."""
        ...

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """Files that are not part of it, each with the reason."""
        ...

    def pictures(self) -> Iterator[Picture]:
        """Iterate over the pictures, in the order of their paths."""
        ...


Source = TableSource | PictureSource


class Reader(Protocol):
    """Looks at a path and says what is there."""

    def open(self, path: Path) -> Source:
        """Look at a path.

        Raises:
            InvalidRequest: it is missing, empty, or not of this kind.
        """
        ...


@dataclass(frozen=True, slots=True)
class Listed:
    """A picture source whose list is short enough to hold."""

    fields: tuple[str, ...]
    found: tuple[Picture, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def pictures(self) -> Iterator[Picture]:
        """Iterate over the pictures."""
        return iter(self.found)


def choose(path: Path, name: str = "") -> tuple[str, Reader]:
    """Return the reader of a path, and its name: the one asked for, or the first that knows its kind.

    Raises:
        InvalidRequest: the path is missing, or no reader knows it.
        MissingExtra: its packages are not installed.
    """
    if not path.exists():
        raise InvalidRequest(f"{path} does not exist")
    if name:
        return name, CATALOGUE.build(name)
    for candidate in sorted(CATALOGUE.names, key=lambda one: one == "image-folder"):
        if CATALOGUE.load(candidate).module.reads(path):
            return candidate, CATALOGUE.build(candidate)
    raise InvalidRequest(
        f"no reader knows {path.name!r}. Readers: {', '.join(CATALOGUE.names)}; see --reader."
    )


def listed(found: Collection[Picture], left_out: Sequence[tuple[str, str]], where: Path) -> Listed:
    """Return pictures as a source.

    Raises:
        InvalidRequest: there are none, or two have the same path.
    """
    if not found:
        raise InvalidRequest(f"{where} holds no picture")
    ordered = tuple(sorted(found, key=lambda picture: picture.path))
    for one, other in itertools.pairwise(ordered):
        if one.path == other.path:
            raise InvalidRequest(f"{where} names the picture {one.path!r} twice")
    names: dict[str, None] = {"path": None}
    for picture in ordered:
        names |= dict.fromkeys(picture.fields)
        for annotation in picture.annotations:
            names |= dict.fromkeys(annotation)
    return Listed(tuple(names), ordered, tuple(left_out))


def inside(root: Path, name: str) -> Path | None:
    """Return a file below a folder; None where it is missing or the name leads out of it."""
    file = root / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    try:
        resolved = file.resolve(strict=True)
    except (OSError, ValueError):
        return None
    return file if resolved.is_file() and resolved.is_relative_to(root.resolve()) else None
