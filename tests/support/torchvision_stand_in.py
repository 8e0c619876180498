"""A stand-in for torchvision, where it is not installed or does not load: all that Ultralytics asks of it."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

_METADATA = "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n"
_CODE = '''"""A stand-in: see tests/support/torchvision_stand_in.py."""
from torchvision import ops
'''
_OPS = '''"""Greedy suppression of overlapping boxes, by Ultralytics' own code."""


def nms(boxes, scores, iou_threshold):
    from ultralytics.utils.nms import TorchNMS

    return TorchNMS.nms(boxes, scores, iou_threshold)
'''


def needed() -> bool:
    """Return whether torchvision is missing or does not load beside this PyTorch."""
    try:
        importlib.metadata.version("torchvision")
        import torchvision  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return True
    return False


def make(folder: Path) -> Path:
    """Write the stand-in into a folder, to be put on the path, and return the folder."""
    notes = folder / "torchvision-0.28.0.dist-info"
    package = folder / "torchvision"
    notes.mkdir(parents=True)
    package.mkdir()
    (notes / "METADATA").write_text(_METADATA)
    (package / "__init__.py").write_text(_CODE)
    (package / "ops.py").write_text(_OPS)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what was left of one that did not load
    return folder


def put(folder: Path) -> None:
    """Put the stand-in first on the path of this process: for programs of their own, such as benchmarks."""
    sys.path.insert(0, str(make(folder)))
    importlib.invalidate_caches()
