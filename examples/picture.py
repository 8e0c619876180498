"""Make the picture in the README: a portrait as it is, under the default cover, and under a cosmetic blur.

python examples/picture.py docs/pictures/astronaut.jpg
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image
from skimage import data

import sfumato

GAP = 8


def main() -> None:
    """Redact the portrait twice and put the three side by side."""
    portrait = data.astronaut()
    covers = [portrait, *(sfumato.redact(portrait, cover=cover).image for cover in ("fill", "blur"))]
    white = np.full((portrait.shape[0], GAP, 3), 255, np.uint8)
    row = np.concatenate([covers[0], white, covers[1], white, covers[2]], axis=1)
    picture = Image.fromarray(row)
    picture.thumbnail((1200, 400))
    picture.save(sys.argv[1], quality=88, optimize=True)


if __name__ == "__main__":
    main()
