"""Ultralytics, where it is installed; torchvision's stand-in beside it, where that does not load."""

from __future__ import annotations

import importlib.util

import pytest
import torchvision_stand_in


@pytest.fixture(scope="session")
def yolo(tmp_path_factory):
    """The one file that touches Ultralytics."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("needs Ultralytics (AGPL-3.0): pip install sfumato[yolo]")
    if torchvision_stand_in.needed():
        torchvision_stand_in.make(tmp_path_factory.mktemp("torchvision"))
    from sfumato.training.detect import _ultralytics

    _ultralytics.require()
    return _ultralytics


@pytest.fixture
def double():
    """Floats of 64 bits, as the package's loss makes its own tensors in the default type."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.float64
    torch.set_default_dtype(before)


@pytest.fixture
def scenes():
    """Draws a small detection set."""
    from detection_scenes import draw

    return draw
