"""The report: what it shows, what it opens, and what it must never hold."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.core.receipt import Output, Receipt
from sfumato.redaction.report import page, write_report
from sfumato.redaction.result import Run
from sfumato.redaction.run import Options, run_files
from sfumato.redaction.settings import Settings
from sfumato.redaction.sheets import FRAMES, PICTURES, SIDE, Sheet, Thumb, sheets, spread
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector


def paint(path: Path, shade: int = 90, size: tuple[int, int] = (80, 60), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), shade, np.uint8)
    pixels[20:40, 30:55] = MAGENTA
    Image.fromarray(pixels).save(path, **options)
    return path


def go(source: Path, target: Path, request: Any = None, **options: Any) -> Run:
    return run_files(
        source, target, request, options=Options(**options),
        finder=lambda settings: Finder([ToyDetector()], settings.hide),
    )  # fmt: skip


class Reader(HTMLParser):
    """Collects every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def images(self) -> list[bytes]:
        sources = [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]
        assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
        return [base64.b64decode(source.partition(",")[2]) for source in sources]


def asks_elsewhere(text: str) -> list[str]:
    """Return everything in a page that a browser would fetch or run."""
    found = []
    for tag, attributes in Reader(text).tags:
        if tag in ("script", "link", "iframe", "object", "embed", "form", "base"):
            found.append(tag)
        for name, value in attributes.items():
            if name in ("src", "href", "srcset", "action", "data") and not (value or "").startswith("data:"):
                found.append(f"{tag} {name}")
            if name.startswith("on") or name == "style":
                found.append(f"{tag} {name}")
    if re.search(r"@import|url\(", text):
        found.append("css")
    return found


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mixed(tmp_path: Path, clip: Callable[..., Path]) -> Path:
    source = tmp_path / "photos"
    for index in range(3):
        paint(source / f"{index}.jpg", 60 * index)
    (source / "cut.jpg").write_bytes((source / "0.jpg").read_bytes()[:200])
    clip("walk.mp4", frames=30).rename(source / "walk.mp4")
    return source


def test_it_shows_what_was_done(mixed: Path, tmp_path: Path) -> None:
    run = go(mixed, tmp_path / "safe")
    assert run.report_path == tmp_path / "safe" / "report.html"
    text = run.report_path.read_text()
    reader = Reader(text)
    assert len(reader.images()) == 3 + FRAMES
    assert "heuristic" in text
    assert run.receipt is not None
    for line in (run.receipt.digest, ToyDetector().weights.sha256, "UnreadableMedia", "3 pictures"):
        assert line in text
    for limit in run.receipt.body["guarantee"]["limits"]:
        assert limit in text
    assert "cosmetic" not in text
    assert asks_elsewhere(text) == []
    assert "default-src 'none'" in text


def test_the_check_for_requests_can_fail() -> None:
    bad = "<img src='https://x/y.png'><script></script><a href='http://x'>x</a><b onclick='y'></b>"
    assert asks_elsewhere(bad) == ["img src", "script", "a href", "b onclick"]


def test_the_style_is_the_one_that_the_page_allows(mixed: Path, tmp_path: Path) -> None:
    import hashlib

    text = (go(mixed, tmp_path / "safe").report_path or tmp_path).read_text()
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    assert base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode() in text


def test_a_cosmetic_cover_is_warned_of(mixed: Path, tmp_path: Path) -> None:
    text = (go(mixed, tmp_path / "safe", Settings(cover="pixelate")).report_path or tmp_path).read_text()
    assert "The cover is cosmetic." in text
    assert "96 % re-identified" in text


def test_no_names_and_no_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "Anna K., 12 Elm Street"
    paint(tmp_path / "photos" / "anna.jpg", exif=exif)
    (tmp_path / "photos" / "anna-notes.txt").write_text("x")
    (tmp_path / "photos" / "anna-cut.jpg").write_bytes(b"\xff\xd8\xff")
    run = go(tmp_path / "photos", tmp_path / "safe")
    assert len(run.failures) == 1
    text = (run.report_path or tmp_path).read_text()
    assert "anna" not in text.lower()
    (image,) = Reader(text).images()
    with Image.open(io.BytesIO(image)) as thumb:
        assert not thumb.getexif()
        assert set(thumb.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert b"Elm" not in image


def test_thumbnails_carry_no_metadata_even_when_the_output_does(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "Anna"
    path = paint(tmp_path / "out.jpg", exif=exif, comment=b"Anna", size=(900, 600))
    (sheet,) = sheets([(path, "image", "ab" * 32)])
    (thumb,) = sheet.thumbs
    assert thumb.jpeg is not None
    assert b"Anna" not in thumb.jpeg
    assert b"Anna" in path.read_bytes()  # the check can fail
    assert max(thumb.width, thumb.height) == SIDE
    assert thumb.caption == "1 · abababab"


def test_everything_is_escaped(tmp_path: Path) -> None:
    path = paint(tmp_path / "a.png")
    run = go(path, tmp_path / "safe.png", report=False)
    assert run.receipt is not None
    evil = '"><script>alert(1)</script>'
    body: dict[str, Any] = {**run.receipt.body, "made_by": evil}
    body["facts"] = {**body["facts"], "notes": [evil], "regions": {evil: 1}, "failed_by_reason": {evil: 1}}
    body["guarantee"] = {"type": "heuristic", "statement": evil, "limits": [evil]}
    body["plan"] = {**body["plan"], "purpose": evil}
    parameters = {**body["plan"]["parameters"], "models": [{"name": evil, "licence": evil, "sha256": evil}]}
    body["plan"]["parameters"] = parameters | {"settings": {evil: evil}}
    text = page(Receipt(body), [Sheet(evil, (Thumb(None, caption=evil),))])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 10


def test_many_outputs_give_a_bounded_page(tmp_path: Path) -> None:
    path = paint(tmp_path / "a.jpg")
    (sheet,) = sheets([(path, "image", f"{index:064}") for index in range(1000)])
    assert len(sheet.thumbs) == PICTURES
    assert sheet.title == f"{PICTURES} of 1000 pictures, evenly spread"
    numbers = [int(thumb.caption.split()[0]) for thumb in sheet.thumbs]
    assert (numbers[0], numbers[-1]) == (1, 1000)
    assert max(b - a for a, b in pairwise(numbers)) <= 22
    assert spread([1, 2], 5) == [1, 2]


def test_odd_outputs_are_shown_or_said_not_to_be(tmp_path: Path) -> None:
    deep = np.zeros((40, 50), np.uint16)
    deep[:, 25:] = 65535
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.new("CMYK", (30, 30)).save(tmp_path / "cmyk.jpg")
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    names = ("deep.png", "cmyk.jpg", "clear.png", "bad.png")
    (sheet,) = sheets([(tmp_path / name, "image", "0" * 64) for name in names])
    assert [thumb.jpeg is not None for thumb in sheet.thumbs] == [True, True, True, False]
    shown = np.array(Image.open(io.BytesIO(sheet.thumbs[0].jpeg or b"")))
    assert (int(shown[20, 5, 0]), int(shown[20, 45, 0])) == (0, 255)
    clear = np.array(Image.open(io.BytesIO(sheet.thumbs[2].jpeg or b"")))
    assert clear.min() > 250  # what is transparent is white, not black


def test_frames_of_a_video_are_spread_over_it(clip: Callable[..., Path]) -> None:
    path = clip("long.mp4", frames=120, options={"crf": "20", "g": "40"})
    (sheet,) = sheets([(path, "video", "ab" * 32)])
    times = [float(thumb.caption.split()[0]) for thumb in sheet.thumbs]
    assert len(times) == FRAMES
    assert times == sorted(times)
    assert times[0] < 0.4
    assert times[-1] > 4.4
    short = clip("short.mp4", frames=3)
    (sheet,) = sheets([(short, "video", "ab" * 32)])
    assert 1 <= len(sheet.thumbs) <= 3


def test_it_is_made_when_the_inputs_are_gone(mixed: Path, tmp_path: Path) -> None:
    run = go(mixed, tmp_path / "safe", report=False)
    shutil.rmtree(mixed)
    assert run.receipt is not None
    outputs = [(result.item.target, result.outcome.kind) for result in run.results]
    write_report(tmp_path / "report.html", run.receipt, outputs)
    assert len(Reader((tmp_path / "report.html").read_text()).images()) == 3 + FRAMES


OPENS = """
    import sys
    from pathlib import Path

    opened = []
    sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)

    from sfumato.core.receipt import Output, Receipt
    from sfumato.redaction.report import write_report

    output, receipt, report = map(Path, sys.argv[1:])
    write_report(report, Receipt.read(receipt), [(output, "image")])
    folder = str(output.parent.parent)
    print("\\n".join(path for path in opened if folder in path))
"""


def test_it_opens_outputs_only(tmp_path: Path) -> None:
    source = paint(tmp_path / "photos" / "a.jpg")
    run = go(source.parent, tmp_path / "safe", report=False)
    result = subprocess.run(
        [
            sys.executable, "-c", textwrap.dedent(OPENS),
            tmp_path / "safe" / "a.jpg", run.receipt_path or "", tmp_path / "safe" / "report.html",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    opened = {Path(line).name for line in result.stdout.splitlines()}
    assert {"a.jpg", "receipt.json"} <= opened
    assert str(source) not in result.stdout


def test_outputs_and_receipt_must_fit(tmp_path: Path) -> None:
    run = go(paint(tmp_path / "a.png"), tmp_path / "safe.png", report=False)
    assert run.receipt is not None
    assert isinstance(run.receipt.outputs[0], Output)
    with pytest.raises(ValueError, match="zip"):
        write_report(tmp_path / "report.html", run.receipt, [])
    assert not (tmp_path / "report.html").exists()
