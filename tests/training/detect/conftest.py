"""Ultralytics, where it is installed; torchvision's stand-in beside it, where that does not load.

Both are in the process while the tests of one file run, and out of it again for everybody else's.
"""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torchvision_stand_in

_KEPT = {}


def ours(name):
    return name.partition(".")[0] in ("ultralytics", "torchvision")


@pytest.fixture(scope="session")
def torchvision_folder(tmp_path_factory):
    """The folder of the stand-in; None where torchvision loads by itself."""
    if not torchvision_stand_in.needed():
        return None
    return torchvision_stand_in.make(tmp_path_factory.mktemp("stand-in") / "torchvision")


@pytest.fixture(scope="module")
def yolo(torchvision_folder):
    """The one file that touches Ultralytics."""
    pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("Ultralytics is AGPL-3.0 and never installed unasked: pip install sfumato[yolo]")
    from sfumato.training.detect import _ultralytics

    with pytest.MonkeyPatch.context() as patch:
        sys.modules.update(_KEPT)
        if torchvision_folder is not None:
            patch.syspath_prepend(str(torchvision_folder))
        _ultralytics.require()
        yield _ultralytics
        for name in [name for name in sys.modules if ours(name)]:
            _KEPT[name] = sys.modules.pop(name)


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
