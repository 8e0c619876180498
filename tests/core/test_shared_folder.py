"""A project that a group shares: what one makes, the others can use, whatever the umask."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.core.anchor import FileAnchor, Head
from sfumato.core.book import SQLiteBook
from sfumato.core.files import make_private, open_private, write_whole
from sfumato.data.lock import locked

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")


@pytest.fixture(params=[0o2770, 0o700], ids=["shared", "private"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    made = tmp_path / "project"
    made.mkdir()
    made.chmod(request.param)
    before = os.umask(0o022)
    yield made
    os.umask(before)


def wanted(folder: Path) -> int:
    return 0o660 if folder.stat().st_mode & 0o070 else 0o600


def test_private_files_and_folders_are_their_folders_groups_too(folder: Path):
    make_private(folder / "catalogue" / "clinic")
    write_whole(folder / "objects" / "ab" / "cd", "x", mode=None)
    os.close(open_private(folder / "catalogue" / "clinic" / "1.claim", os.O_RDWR | os.O_EXCL))
    with locked(folder / "lock"):
        pass
    FileAnchor(folder / "heads").advance(Head(1, "a" * 64))
    for path in folder.rglob("*"):
        mode = path.stat().st_mode & 0o777
        if path.is_dir():
            assert mode & 0o770 == (0o770 if wanted(folder) == 0o660 else 0o700), path
        else:
            assert mode == wanted(folder), path
        assert not mode & 0o007


def test_a_book_that_one_makes_the_others_can_write(folder: Path):
    SQLiteBook(str(folder / "ledger.db"), create=True).connection.close()
    group = (folder / "ledger.db").stat().st_mode & 0o020
    assert bool(group) == (wanted(folder) == 0o660)
    assert sqlite3.connect(folder / "ledger.db").execute("pragma integrity_check").fetchone() == ("ok",)
