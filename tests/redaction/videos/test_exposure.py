"""Faces left open in real clips with hand-made labels, as they are and degraded, and in fast ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def exposure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _exposure

    return _exposure


def _open(exposure: ModuleType, samples: list[Any], folder: Path) -> tuple[int, int]:
    ours = exposure.Ours(exposure.Memory(folder / "found.pickle"))
    figures = [exposure.figure(sample, ours) for sample in samples]
    return sum(one.exposed for one in figures), sum(one.total for one in figures)


@pytest.mark.parametrize("name", ["run", "jerk"])
def test_a_fast_face_is_never_open(exposure: ModuleType, tmp_path: Path, name: str) -> None:
    pytest.importorskip("skimage", reason="its portrait is the picture: pip install scikit-image")
    samples = [one for one in exposure.moving(tmp_path) if one.name == f"moving {name}"]
    count, total = _open(exposure, samples, tmp_path)
    assert total > 25
    assert count == 0


def test_no_face_is_open_in_the_clean_clip(
    exposure: ModuleType, tmp_path: Path, testdata: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure, "DATA", testdata("video/bikes.mp4").parents[1])
    monkeypatch.setattr(exposure, "COPIES", {})
    samples = [one for one in exposure.labelled(tmp_path) if one.name == "bikes clean"]
    assert _open(exposure, samples, tmp_path) == (0, 56)


@pytest.mark.slow
def test_hardly_a_face_is_open_in_degraded_clips(
    exposure: ModuleType, tmp_path: Path, testdata: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposure, "DATA", testdata("video/bikes.mp4").parents[1])
    samples = exposure.labelled(tmp_path)
    clean = [one for one in samples if one.name.endswith("clean")]
    count, total = _open(exposure, clean, tmp_path)
    assert (count, total) == (0, 176)
    count, total = _open(exposure, [one for one in samples if one not in clean], tmp_path)
    assert total == 528
    assert count <= 0.015 * total


def test_the_measure_sees_a_face_left_open(exposure: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="its portrait is the picture: pip install scikit-image")

    class Nothing:
        looks = 0.0

        def masks(self, path: Path) -> Any:
            import numpy as np

            return (np.zeros((360, 640), bool) for _ in range(40))

    (sample,) = (one for one in exposure.moving(tmp_path) if one.name == "moving zoom")
    figure = exposure.figure(sample, Nothing())
    assert figure.exposed == figure.total > 0
    assert sys.path[0] == str(BENCHMARKS)
