"""A contact sheet of finds: each with its surroundings, outlined, as PNG. It shows what was to be hidden."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sfumato.core.files import whole
from sfumato.redaction.check.looks import Picture
from sfumato.redaction.check.report import Find
from sfumato.redaction.check.videos import upright
from sfumato.redaction.images.read import read_picture
from sfumato.redaction.images.views import views
from sfumato.redaction.sheets import spread
from sfumato.redaction.videos.reader import open_video
from sfumato.vision.opencv import opencv

#: Side of one picture of the sheet, of its caption, and how many there are at most and in a row.
SIDE, LINE, MOST, ROW = 240, 18, 60, 6
#: How much around a box is shown, in sides of it.
AROUND = 1.0
OUTLINE = (255, 0, 0)


def write_sheet(path: Path, root: Path, finds: Sequence[Find], max_pixels: int) -> int:
    """Write a contact sheet of the finds that have a place in a picture; the file appears whole.

    Args:
        path: the PNG to write, for the owner's eyes only.
        root: the file or folder that was checked.
        finds: what was found there.
        max_pixels: as for the check.

    Returns:
        How many finds it shows; with none, nothing is written.
    """
    cells = []
    for find in spread([one for one in finds if one.box is not None], MOST):
        file = root / find.file if root.is_dir() else root
        picture = _shown(file, find, max_pixels)
        if picture is not None:
            cells.append(_cell(picture, find))
    if not cells:
        return 0
    from PIL import Image

    columns = min(ROW, len(cells))
    rows = -(-len(cells) // columns)
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (rows * columns - len(cells))
    lines = [np.hstack(cells[row * columns : (row + 1) * columns]) for row in range(rows)]
    with whole(path, mode=0o600) as aside:
        Image.fromarray(np.vstack(lines)).save(aside, "PNG")
    return sum(cell is not blank for cell in cells)


def _shown(file: Path, find: Find, max_pixels: int) -> Picture | None:
    """Return the picture or frame of a find."""
    if find.seconds is None:
        page = read_picture(file, max_pixels).pages[find.frame or 0]
        return next(iter(views(page.pixels, page.channels)))
    with open_video(file, max_pixels) as reader:
        for shot in reader.frames():
            if shot.index == find.frame:
                return upright(shot.frame)
    return None


def _cell(picture: Picture, find: Find) -> Picture:
    """Return a find with what is around it, outlined, over a line that says what it is."""
    cv2 = opencv()
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = find.box or (0.0, 0.0, 0.0, 0.0)
    side = max(x2 - x1, y2 - y1) * (1 + 2 * AROUND)
    left = int(max(0, min((x1 + x2 - side) / 2, width - side)))
    top = int(max(0, min((y1 + y2 - side) / 2, height - side)))
    part = picture[top : top + max(2, round(side)), left : left + max(2, round(side))]
    factor = SIDE / max(part.shape[:2])
    size = (max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor)))
    large = cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_CUBIC)
    corners = [round((value - shift) * factor) for value, shift in zip((x1, y1), (left, top), strict=True)]
    others = [round((value - shift) * factor) for value, shift in zip((x2, y2), (left, top), strict=True)]
    cv2.rectangle(large, tuple(corners), tuple(others), OUTLINE, 2)
    cell = np.full((SIDE + LINE, SIDE, 3), 255, np.uint8)
    cell[: large.shape[0], : large.shape[1]] = large
    at = "" if find.frame is None else f" frame {find.frame}"
    text = f"{find.kind} {find.label} {find.score or 0:.2f}{at}"
    cv2.putText(cell, text, (4, SIDE + LINE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return cell
