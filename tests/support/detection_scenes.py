"""A small detection set that is drawn: squares and discs on noise, as a YOLO data.yaml."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def draw(
    folder: Path, count: int, *, seed: int = 0, side: int = 96, names: tuple[str, ...] = ("square", "disc")
) -> Path:
    """Write pictures, labels and data.yaml; every eighth picture has nothing in it."""
    rng = np.random.default_rng(seed)
    pictures, labels = folder / "images" / "train", folder / "labels" / "train"
    pictures.mkdir(parents=True)
    labels.mkdir(parents=True)
    for index in range(count):
        width, height = side, int(side * rng.uniform(0.7, 1.0))
        pixels = rng.integers(60, 100, (height, width, 3)).astype(np.uint8)
        lines = []
        for _ in range(0 if index % 8 == 7 else rng.integers(1, 4)):
            size = int(rng.uniform(0.2, 0.4) * side)
            x, y = rng.integers(0, width - size), rng.integers(0, height - size)
            kind = int(rng.integers(2))
            if kind == 0:
                cv2.rectangle(
                    pixels, (int(x), int(y)), (int(x) + size - 1, int(y) + size - 1), (40, 40, 230), -1
                )
            else:
                cv2.circle(pixels, (int(x) + size // 2, int(y) + size // 2), size // 2, (40, 220, 40), -1)
            lines.append(
                " ".join(
                    [str(kind)]
                    + [
                        f"{v:.6f}"
                        for v in (
                            (x + size / 2) / width,
                            (y + size / 2) / height,
                            size / width,
                            size / height,
                        )
                    ]
                )
            )
        cv2.imwrite(str(pictures / f"{index:04d}.png"), pixels)
        if lines:
            (labels / f"{index:04d}.txt").write_text("\n".join(lines) + "\n")
    listed = "\n".join(f"  {number}: {name}" for number, name in enumerate(names))
    (folder / "data.yaml").write_text(f"train: images/train\nnames:\n{listed}\n")
    return folder


def package_batch(marked, side: int):
    """Labels of pictures, (class, x1, y1, x2, y2) in pixels, as Ultralytics' loss wants them."""
    import torch

    rows = [(index, *row) for index, part in enumerate(marked) for row in part]
    table = torch.tensor(rows, dtype=torch.get_default_dtype()).reshape(-1, 6)
    low, high = table[:, 2:4], table[:, 4:6]
    boxes = torch.cat(((low + high) / 2, high - low), 1) / side
    return {"batch_idx": table[:, 0], "cls": table[:, 1:2], "bboxes": boxes}
