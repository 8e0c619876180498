"""OpenCV, or what to do where it does not load."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from typing import Any

from sfumato.core.errors import InvalidRequest, MissingExtra


def opencv() -> Any:
    """Return the module `cv2`.

    Raises:
        MissingExtra: no OpenCV package is installed.
        InvalidRequest: it is installed, but a system library that it needs is not, or two OpenCV packages
            have overwritten each other.
    """
    try:
        module = importlib.import_module("cv2")
    except ModuleNotFoundError as error:
        raise MissingExtra("reading and scaling pictures", ["opencv-python"], "") from error
    except ImportError as error:
        raise InvalidRequest(
            f"OpenCV is installed but does not load: {error}. On Debian and Ubuntu run: apt-get install "
            "libgl1 libglib2.0-0. On Fedora: dnf install mesa-libGL glib2. Where no system package may be "
            "installed: pip uninstall -y opencv-python && pip install opencv-python-headless"
        ) from error
    if not hasattr(module, "resize"):
        raise InvalidRequest(
            "OpenCV is damaged: its module holds no functions, as happens when one of two OpenCV packages "
            "was uninstalled. Run: pip install --force-reinstall --no-deps opencv-python"
        )
    return module


class _OneThread:
    """Counts who wants OpenCV to work in the thread that calls it; the last one gives its threads back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = 1

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Keep OpenCV to the calling thread while the block runs.

        Its helper threads wait by spinning: on patches of a few thousand pixels, of which a video has many
        per frame, they take as much again as the work itself. The number of threads is OpenCV's for the whole
        process, so other users are slowed at large pictures meanwhile, and nothing else; it is put back.
        """
        cv2 = opencv()
        with self._lock:
            if not self._users:
                self._before = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    cv2.setNumThreads(self._before)


one_thread = _OneThread()
