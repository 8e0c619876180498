"""The only file that touches Ultralytics (AGPL-3.0). It runs in a process of its own: see `export.py`."""

from __future__ import annotations

import sys
from pathlib import Path


def main(source: str, target: str) -> None:
    """Export a `.pt` file to ONNX: the NMS-free head, free input sizes.

    Args:
        source: the weights; the folder they lie in is written to.
        target: the file to write.
    """
    from ultralytics import YOLO, settings

    settings.update({"sync": False})  # no statistics are sent; YOLO_OFFLINE says so as well
    written = YOLO(source).export(format="onnx", nms=False, dynamic=True, simplify=False, device="cpu")
    Path(written).replace(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
