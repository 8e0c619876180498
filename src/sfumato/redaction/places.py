"""Where the things beside the outputs lie: the receipt, the report, the memory of the run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from sfumato.redaction.resume import FILE_NAME as JOURNAL_NAME
from sfumato.redaction.tree import Tree

RECEIPT, REPORT = "receipt.json", "report.html"


@dataclass(frozen=True, slots=True)
class Places:
    """The files that a run writes beside its outputs."""

    receipt: Path
    report: Path
    journal: Path

    @classmethod
    def of(cls, tree: Tree) -> Places:
        """Return the places for a folder's outputs, or for a single one."""
        if tree.folder:
            return cls.inside(tree.root)
        target = tree.items[0].target
        return cls.beside(target.parent, target.name)

    @classmethod
    def inside(cls, folder: Path) -> Places:
        """Return the places for the outputs of a folder."""
        return cls(folder / RECEIPT, folder / REPORT, folder / JOURNAL_NAME)

    @classmethod
    def beside(cls, folder: Path, name: str) -> Places:
        """Return the places for one output; by its whole name, so that safe.jpg and safe.mp4 share none."""
        receipt, report = folder / f"{name}.{RECEIPT}", folder / f"{name}.{REPORT}"
        return cls(receipt, report, folder / f".{name}{JOURNAL_NAME}")

    @classmethod
    def around(cls, receipt: Path) -> Places:
        """Return the places that go with a receipt, by its name."""
        own = receipt.name.removesuffix(f".{RECEIPT}")
        return cls.inside(receipt.parent) if own == receipt.name else cls.beside(receipt.parent, own)

    def __iter__(self) -> Iterator[Path]:
        return iter((self.receipt, self.report, self.journal))


class Space:
    """Room on the disk, held for a receipt that is written when all else is.

    Args:
        path: the file that takes the room.
        size: bytes.

    Raises:
        OSError: there is not that much.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        try:
            with path.open("xb") as file:
                file.write(bytes(size))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self.free()
            raise

    def free(self) -> None:
        """Give the room back."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def strangers(folder: Path, known: Collection[Path] = ()) -> list[Path]:
    """Return what lies in a folder, at any depth, and is none of the known paths.

    Hidden files count, and links to folders do: nothing behind them was looked at.

    Raises:
        OSError: a folder cannot be read.
    """
    found = []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        found += [path for name in (*names, *links) if (path := Path(parent) / name) not in known]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error
