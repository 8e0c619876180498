"""One writer at a time, between processes and threads, by a lock on a file."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from sfumato.core.files import open_private


def take(handle: int) -> None:
    """Hold an exclusive lock on an open file until it is closed."""
    _take(handle)


def try_take(handle: int) -> bool:
    """Hold an exclusive lock on an open file until it is closed, if nobody else does; say whether."""
    return _try(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`, which is made if need be; the system frees it when a process dies.

    Not re-entrant: taking it twice in one thread waits for ever.
    """
    handle = open_private(path, os.O_RDWR)
    try:
        _take(handle)
        try:
            yield
        finally:
            _free(handle)
    finally:
        os.close(handle)


def held(path: Path) -> bool:
    """Return whether a living process, or thread, holds the lock on a file."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        if not _try(handle):
            return True
        _free(handle)
        return False
    finally:
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _try(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _take(handle: int) -> None:
        while True:
            with contextlib.suppress(OSError):  # LK_LOCK gives up after ten seconds
                os.lseek(handle, 0, os.SEEK_SET)
                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
                return

    def _free(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX)

    def _free(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)
