"""Where OpenCV does not load, the way out is said."""

from __future__ import annotations

import contextlib
import importlib
import types

import pytest

from sfumato.core.errors import InvalidRequest, MissingExtra
from sfumato.vision.opencv import one_thread, opencv


def failing(error):
    def load(name):
        raise error

    return load


def test_it_is_cv2():
    assert opencv().__name__ == "cv2"


@pytest.mark.parametrize(
    ("error", "kind", "match"),
    [
        (ModuleNotFoundError("No module named 'cv2'"), MissingExtra, "opencv-python"),
        (
            ImportError("libGL.so.1: cannot open shared object file"),
            InvalidRequest,
            r"libGL.*apt-get install libgl1",
        ),
    ],
)
def test_what_is_missing_is_named(monkeypatch, error, kind, match):
    monkeypatch.setattr(importlib, "import_module", failing(error))
    with pytest.raises(kind, match=match):
        opencv()


def test_an_empty_shell_is_told_from_a_package(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda name: types.ModuleType(name))
    with pytest.raises(InvalidRequest, match=r"damaged.*--force-reinstall"):
        opencv()


def test_opencv_works_in_one_thread_and_gets_its_threads_back() -> None:
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        with one_thread():
            assert cv2.getNumThreads() == 1
            with one_thread():
                assert cv2.getNumThreads() == 1
            assert cv2.getNumThreads() == 1
        assert cv2.getNumThreads() == 3
        with contextlib.suppress(KeyError), one_thread():
            raise KeyError
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
