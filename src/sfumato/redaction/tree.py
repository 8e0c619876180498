"""Which files there are, and where each one goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sfumato.core.errors import (
    InvalidRequest,
    MediaError,
    SfumatoError,
    UnreadableMedia,
    UnsupportedMedia,
)
from sfumato.redaction.kinds import EXTENSIONS, head_of, image_kind, sniff
from sfumato.redaction.plan import Kind

#: Files that claim to be media: one of these that cannot be read is a failure, not something left out.
MEDIA_SUFFIXES: Mapping[str, Kind] = {
    **dict.fromkeys(
        (
            *(suffix for group in EXTENSIONS.values() for suffix in group),
            *(".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".psd", ".ico", ".exr", ".hdr"),
            *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf"),
        ),
        "image",
    ),
    **dict.fromkeys(
        (
            *(
                ".mp4",
                ".m4v",
                ".mov",
                ".avi",
                ".mkv",
                ".webm",
                ".mpg",
                ".mpeg",
                ".mts",
                ".m2ts",
                ".wmv",
                ".flv",
            ),
            *(".3gp", ".3g2", ".ogv", ".mxf", ".asf", ".vob", ".dav", ".ivf", ".h264", ".h265", ".hevc"),
        ),
        "video",
    ),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One file to redact.

    Args:
        source, target: where it is read and written.
        key: its path below the source folder, as it is; empty for a single file.
        name: the same, safe to print.
        kind: "image" or "video", by content.
    """

    source: Path
    target: Path
    key: str
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that was not made safe, and why. `error` is the name of the error's class."""

    name: str
    error: str
    reason: str

    @classmethod
    def of(cls, name: str, error: BaseException) -> Failure:
        """Describe an error; one that is not ours is named, so that it can be reported."""
        reason = shown(" ".join(str(error).split())) or type(error).__name__
        if isinstance(error, OSError):
            reason = error.strerror or reason
        elif not isinstance(error, SfumatoError):
            reason = f"unexpected {type(error).__name__}: {reason}"
        own = name.replace("\\", "/").rpartition("/")[2]
        return cls(name, type(error).__name__, reason.removeprefix(own).lstrip(": "))


@dataclass(frozen=True, slots=True)
class Tree:
    """What a source holds.

    Args:
        items: files to redact, in order of their names.
        failures: media that cannot be read at all.
        left_out: (name, why) of files that are no media.
        folder: whether the source is a folder.
        root: the folder that the outputs, the receipt and the report are written to.
    """

    items: tuple[Item, ...]
    failures: tuple[Failure, ...]
    left_out: tuple[tuple[str, str], ...]
    folder: bool
    root: Path

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of files to redact."""
        return tuple(dict.fromkeys(item.kind for item in self.items))


def survey(source: Path, target: Path) -> Tree:
    """Look at a source and say what will be read and written; only the first bytes of files are read.

    Args:
        source: a file, or a folder that is walked to its depths.
        target: the file or folder to write; for a folder, the tree below it mirrors the source's.

    Raises:
        InvalidRequest: no such source, nothing in it, or a target that lies in, holds or is the source.
        MediaError: a single source that is no media or cannot be read.
    """
    if not source.exists():
        raise InvalidRequest(f"there is no file or folder {shown(source)}")
    return _folder(source, target) if source.is_dir() else _single(source, target)


def shown(name: Path | str) -> str:
    """Return a name safe to print: bytes that are no text, and control characters, are spelled out."""
    text = os.fsencode(str(name)).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _single(source: Path, target: Path) -> Tree:
    try:
        kind = _kind(source)
    except _LeftOut as error:
        raise UnsupportedMedia(f"{shown(source.name)} is {error}: give a picture or a video") from None
    if target.is_dir():
        target = target / written_as(source, kind)
    elif not target.suffix:
        raise InvalidRequest(
            f"{shown(target)} names neither a folder that exists nor a kind of file: give it a suffix such "
            f"as {written_as(source, kind).suffix}, or make the folder first"
        )
    elif target.suffix.lower() not in (source.suffix.lower(), *(allowed := suffixes(source, kind))):
        raise InvalidRequest(
            f"{shown(source.name)} is not written to {target.suffix!r}: "
            + ("a picture keeps its format" if kind == "image" else "there is no such video output")
            + f"; choose one of {', '.join(allowed)}"
        )
    if _same(source, target):
        raise InvalidRequest(
            f"the output {shown(target)} is the input itself, and inputs are never changed in place: "
            "choose another name"
        )
    item = Item(source, target, "", shown(source.name), kind)
    return Tree((item,), (), (), folder=False, root=target.parent)


def _folder(source: Path, target: Path) -> Tree:
    _refuse_overlap(source, target)
    found: list[tuple[Path, Kind]] = []
    failures: list[Failure] = []
    left_out: list[tuple[str, str]] = []
    for path, problem in _walk(source):
        name = shown(path.relative_to(source))
        try:
            if problem is not None:
                raise problem
            found.append((path, _kind(path)))
        except _LeftOut as error:
            left_out.append((name, str(error)))
        except (MediaError, OSError) as error:
            failures.append(Failure.of(name, error))
    targets = _targets(source, target, found)
    items = []
    for path, kind in found:
        key = str(path.relative_to(source))
        if path in targets:
            items.append(Item(path, targets[path], key, shown(key), kind))
        else:
            reason = "another file has the name that its output would get; rename one of them"
            failures.append(Failure(shown(key), "InvalidRequest", reason))
    if not items and not failures:
        raise InvalidRequest(
            f"{shown(source)} holds no picture or video"
            + (f"; {len(left_out)} other files were left out" if left_out else "")
        )
    return Tree(tuple(items), tuple(failures), tuple(left_out), folder=True, root=target)


class _LeftOut(UnsupportedMedia):
    """A file that is not meant for redaction; the text says why."""


def _walk(source: Path) -> Iterator[tuple[Path, MediaError | None]]:
    """Yield every file in order, with the problem it has; links to folders are not followed."""
    inside = source.resolve()
    pending = [source]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            yield folder, UnreadableMedia(f"the folder cannot be read: {reason}. Change its permissions.")
            continue
        deeper = []
        for path in entries:
            if path.name.startswith("."):
                yield path, _LeftOut("hidden")
            elif path.is_dir() and path.is_symlink():
                home = path.resolve()
                if home == inside or inside in home.parents:
                    yield path, _LeftOut("a link to a folder that is walked anyway")
                else:
                    yield (
                        path,
                        UnsupportedMedia("a link to a folder outside, not followed: redact it by itself"),
                    )
            elif path.is_dir():
                deeper.append(path)
            else:
                yield path, None
        pending += reversed(deeper)


def _kind(path: Path) -> Kind:
    """Return what a file is, by its first bytes, else by its suffix.

    Raises:
        UnreadableMedia: it cannot be read.
        UnsupportedMedia: it neither is media nor claims to be.
    """
    claimed = MEDIA_SUFFIXES.get(path.suffix.lower())
    if not path.exists():
        raise UnreadableMedia("a link that leads nowhere or in a circle, or a file that went away meanwhile")
    if not path.is_file():
        raise (UnsupportedMedia if claimed else _LeftOut)("not a regular file")
    try:
        kind = sniff(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnreadableMedia(f"cannot be read: {reason}. Change its permissions.") from error
    if kind is not None:
        return kind
    if claimed:
        return claimed  # its reader says what is wrong with it
    raise _LeftOut("neither a picture nor a video")


def suffixes(source: Path, kind: Kind) -> tuple[str, ...]:
    """Return the suffixes that the output of a file can have, best first."""
    if kind == "video":
        from sfumato.redaction.videos.target import TARGETS

        return tuple(TARGETS)
    return EXTENSIONS.get(image_kind(head_of(source)) or "", ())


def written_as(source: Path, kind: Kind) -> Path:
    """Return the name that a file's output gets: its own, with another suffix where that would mislead.

    A picture keeps the name of another picture format: its content decides, and its output is noted.
    """
    suffix = source.suffix.lower()
    known = suffixes(source, kind)
    pictures = [one for group in EXTENSIONS.values() for one in group]
    if suffix in known or not known or (kind == "image" and suffix in pictures):
        return Path(source.name)
    return Path(source.name).with_suffix(known[0])


def _targets(source: Path, target: Path, found: list[tuple[Path, Kind]]) -> dict[Path, Path]:
    """Give every file a target; those that keep their names choose first, and no two share one.

    Names are compared without case, because the target's file system may not tell case apart.
    """
    result: dict[Path, Path] = {}
    taken: set[str] = set()
    proposals = []
    for path, kind in found:
        place = path.relative_to(source).parent
        name = written_as(path, kind)
        kept = name.name == path.name
        proposals.append((not kept, path, [place / name, place / f"{path.name}{name.suffix}"]))
    for _, path, choices in sorted(proposals, key=lambda entry: entry[0]):
        for choice in choices:
            key = str(choice).casefold()
            if key not in taken:
                taken.add(key)
                result[path] = target / choice
                break
    return result


def _refuse_overlap(source: Path, target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InvalidRequest(
            f"{shown(source)} is a folder and {shown(target)} is a file: give a folder for the outputs"
        )
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents:
        raise InvalidRequest(
            f"the output folder {shown(target)} lies in the source {shown(source)}: inputs are never changed "
            "in place, and outputs among them would be redacted again. Choose a folder outside it."
        )
    if inner in outer.parents:
        raise InvalidRequest(
            f"the output folder {shown(target)} holds the source {shown(source)}: whoever gets the outputs "
            "would get the originals with them. Choose a folder beside it."
        )


def _same(source: Path, target: Path) -> bool:
    return target.exists() and source.samefile(target)
