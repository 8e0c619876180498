"""A check of a file or a folder, with what a receipt beside it tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core.errors import InvalidRequest, MediaError, ReceiptInvalid, SfumatoError
from sfumato.core.receipt import Receipt
from sfumato.redaction.check.guard import QUARANTINE
from sfumato.redaction.check.looks import Looker, make_looker
from sfumato.redaction.check.pictures import check_picture
from sfumato.redaction.check.report import Report
from sfumato.redaction.check.videos import check_video
from sfumato.redaction.job import Progress
from sfumato.redaction.kinds import sniff
from sfumato.redaction.places import Places
from sfumato.redaction.plan import Kind
from sfumato.redaction.settings import Settings
from sfumato.redaction.tree import MEDIA_SUFFIXES, Failure, shown

MAX_PIXELS = Settings().max_pixels


class Checker:
    """The parts of a check that stay the same from file to file.

    Args:
        looker: looks.
        thorough: all detectors look in all ways, at every frame.
        max_pixels: a picture or frame with more is not looked at, and counts as failed.
        subtitles: whether outputs may hold subtitles.
        notes: sentences on what could not look.
    """

    def __init__(
        self,
        looker: Looker,
        *,
        thorough: bool = False,
        max_pixels: int = MAX_PIXELS,
        subtitles: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        self.looker, self.thorough, self.max_pixels = looker, thorough, max_pixels
        self.subtitles, self.notes = subtitles, tuple(notes)

    def report(self) -> Report:
        """Return an empty report that says who looks, and for what."""
        return Report(
            detectors=self.looker.detectors, classes=self.looker.labels, notes=[*dict.fromkeys(self.notes)]
        )

    def file(
        self,
        path: Path,
        kind: Kind,
        name: str,
        *,
        original: Path | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Check one file.

        Raises:
            MediaError: it cannot be looked at.
        """
        if kind == "video":
            return check_video(
                path,
                name,
                self.looker,
                original=original,
                thorough=self.thorough,
                max_pixels=self.max_pixels,
                subtitles=self.subtitles,
                progress=progress,
            )
        return check_picture(
            path,
            name,
            self.looker,
            original=original,
            thorough=self.thorough,
            max_pixels=self.max_pixels,
        )


def check(
    path: Path | str,
    *,
    original: Path | str | None = None,
    classes: Sequence[str] = (),
    models: Mapping[str, Path] | None = None,
    thorough: bool = False,
    threads: int = 0,
    looker: Looker | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look for what redacted pictures and videos still show, with other detectors, in other ways.

    >>> check("safe", original="photos").ok  # doctest: +SKIP
    True

    Guarantee (tested):
        An empty report means that the attack it names was run on every picture and frame, and found nothing;
        that metadata is on the allow-list, and that no embedded picture shows anything. It is no proof.

    Args:
        path: an output, or a folder of outputs.
        original: what it was made from, a file or a folder with the same names: coverage is reported too.
        classes: what to look for; empty: what the receipt beside the outputs says was hidden, else faces.
        models: detector name -> weights file, in place of the model cache.
        thorough: all detectors look in all ways, at every frame: many times slower.
        threads: inference threads; 0: one per core.
        looker: looks instead of those of the catalogue.
        progress: called with (frames done, frames or None) of a video.

    Raises:
        InvalidRequest: no such file, nothing in it to check, or an original that is not there.
        UnknownName, MissingModel: nothing can look for a class.
    """
    root = Path(path)
    if not root.exists():
        raise InvalidRequest(f"there is no file or folder {shown(root)}")
    source = None if original is None else Path(original)
    if source is not None and (not source.exists() or source.is_dir() != root.is_dir()):
        raise InvalidRequest(
            f"the original of {shown(root)} must be a {'folder' if root.is_dir() else 'file'} that exists, "
            f"got {shown(source)}"
        )
    files = list(_media(root))
    if not files:
        raise InvalidRequest(f"{shown(root)} holds no picture or video to check")
    hidden, hid, kept = _told_by_receipt(root)
    notes: list[str] = []
    if looker is None:
        looker, notes = make_looker(
            tuple(classes) or hidden or ("face",), models=models, hid=hid, threads=threads
        )
    checker = Checker(looker, thorough=thorough, subtitles=kept, notes=notes)
    report = checker.report()
    for file, kind in files:
        name = shown(file.relative_to(root) if root.is_dir() else file.name)
        one = Report()
        try:
            before = _original(file, root, source)
            one = checker.file(file, kind, name, original=before, progress=progress)
        except (MediaError, OSError) as error:
            one.failures.append((name, Failure.of(name, error).reason))
        report.take(one)
    return report


def _media(root: Path) -> Iterator[tuple[Path, Kind]]:
    """Yield every picture and video, in order; hidden files too: they are handed on with the rest."""
    paths = [root] if not root.is_dir() else sorted(root.rglob("*"))
    for path in paths:
        if not path.is_file() or (root.is_dir() and QUARANTINE in path.relative_to(root).parts[:-1]):
            continue
        try:
            kind = sniff(path) or MEDIA_SUFFIXES.get(path.suffix.lower())
        except OSError:
            kind = MEDIA_SUFFIXES.get(path.suffix.lower())
        if kind is not None:
            yield path, kind


def _original(file: Path, root: Path, source: Path | None) -> Path | None:
    """Return the original of an output: the same name, or the same without suffix.

    Raises:
        MediaError: there is none, or there are several.
    """
    if source is None or not source.is_dir():
        return source
    place = source / file.relative_to(root)
    if place.is_file():
        return place
    for stem in (place.stem, place.name.removesuffix(place.suffix)):
        found = [one for one in sorted(place.parent.glob("*")) if stem in (one.stem, one.name)]
        if len(found) == 1:
            return found[0]
    raise MediaError(f"no original of this name lies in {shown(source)}: give the folder it was made from")


def _told_by_receipt(root: Path) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Return the classes hidden, the models that hid, and whether subtitles were kept, if a receipt tells."""
    places = Places.inside(root) if root.is_dir() else Places.beside(root.parent, root.name)
    if not places.receipt.is_file():
        return (), (), False
    try:
        parameters: Any = Receipt.read(places.receipt).body["plan"]["parameters"]
        hidden = tuple(str(label) for label in parameters["settings"]["hide"])
        models = tuple(str(model["name"]) for model in parameters["models"])
        return hidden, models, parameters["settings"].get("subtitles") == "copy"
    except (ReceiptInvalid, SfumatoError, KeyError, TypeError, AttributeError):
        return (), (), False
