"""Pillow, kept from filling in what a cut picture lacks, whatever other packages have told it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from PIL import ImageFile

_lock = threading.Lock()
_inside = 0
_before = False


@contextlib.contextmanager
def whole_pictures() -> Iterator[None]:
    """Let Pillow refuse pictures that break off, for as long as anybody is inside; then as it was.

    >>> with whole_pictures():
    ...     ImageFile.LOAD_TRUNCATED_IMAGES
    False

    Whether it does is a switch for the whole process, and packages turn it when they are imported (WeasyPrint
    does): a cut picture would be read as if it were whole, with grey where the rest was.
    """
    global _before, _inside
    with _lock:
        if not _inside:
            _before = bool(ImageFile.LOAD_TRUNCATED_IMAGES)
        _inside += 1
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                ImageFile.LOAD_TRUNCATED_IMAGES = _before
