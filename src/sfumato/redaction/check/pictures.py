"""A picture file under the eyes of the check."""

from __future__ import annotations

from pathlib import Path

from sfumato.core.errors import UnsupportedMedia
from sfumato.redaction.check.coverage import Compared
from sfumato.redaction.check.looks import Looker
from sfumato.redaction.check.metadata import thumbnails, told
from sfumato.redaction.check.report import Find, Report
from sfumato.redaction.images.read import read_picture
from sfumato.redaction.images.views import views


def check_picture(
    path: Path,
    name: str,
    looker: Looker,
    *,
    original: Path | None = None,
    thorough: bool = False,
    max_pixels: int,
) -> Report:
    """Look at every page of a picture, at what is embedded in it, and at its metadata.

    Args:
        path: the output.
        name: what the finds call it.
        looker: looks.
        original: what it was made from.
        thorough: all detectors look in all ways.
        max_pixels: a picture with more is refused.

    Raises:
        MediaError: it cannot be read.
        UnsupportedMedia: the original has another size.
    """
    report = Report(pictures=1)
    report.finds += told(path, "image", name)
    report.finds += thumbnails(path, "image", name, looker)
    pages = read_picture(path, max_pixels).pages
    sources = read_picture(original, max_pixels).pages if original is not None else []
    compared = Compared(name)
    for index, page in enumerate(pages):
        number = index if len(pages) > 1 else None
        shown = list(views(page.pixels, page.channels))
        for picture in shown:
            for seen in looker.closely(picture, thorough=thorough):
                report.finds.append(
                    Find(
                        file=name,
                        kind="seen",
                        label=seen.label,
                        score=round(seen.score, 4),
                        box=seen.box,
                        frame=number,
                        look=seen.look,
                    )
                )
        if original is not None:
            if index >= len(sources) or sources[index].pixels.shape[:2] != page.pixels.shape[:2]:
                raise UnsupportedMedia(
                    f"{name} is not as large as its original, so that the two cannot be compared"
                )
            before = next(iter(views(sources[index].pixels, sources[index].channels)))
            found = looker.closely(before)
            compared.still(before, shown[0], found, number)
    report.finds += compared.finds()
    report.coverage += compared.coverage()
    return report
