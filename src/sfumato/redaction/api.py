"""Redaction in Python: one call, or many pictures through one permit."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.core.files import digest_of
from sfumato.core.gate import UNDECLARED, Gate, Permit
from sfumato.core.policy import Policy
from sfumato.core.project import Project
from sfumato.core.receipt import Receipt
from sfumato.redaction.door import opened
from sfumato.redaction.plan import FinderFactory, Ready, prepare
from sfumato.redaction.request import Request
from sfumato.redaction.zones import Zone
from sfumato.vision.boxes import Boxes

if TYPE_CHECKING:
    from PIL import Image

Order = Literal["RGB", "BGR"]


class Options(TypedDict, total=False):
    """Keywords of `redact` and `Redactor` beside `hide` and `cover`.

    Args:
        models: detector name -> weights file.
        threshold: least score that is hidden; one number for every class, or class -> score.
        margins: class -> share of the box's side added on every side.
        detectors: detectors to use by name.
        size: long side of the detectors' input in pixels.
        threads: inference threads; 0: one per core.
        cover_options: keyword settings of the cover.
        max_pixels: a picture with more pixels is refused, a file before it is decoded.
        covers: class, or "zone NAME", -> name of its cover, where it is another than `cover`.
        zones: fixed places that are covered: `Zone` objects, or tables with their fields.
        keep: names of zones, and things such as "face@0.4,0.3", that are never covered.
        only: in place of `hide`: these classes and zones and no others, where the policy allows that.
        channels: order of colours in arrays, given and returned: "RGB", or "BGR" as OpenCV has it.
        purpose: what the pictures are for, a purpose of the policy.
        gate: the gate to go through; absent: that of the project that a picture file lies in, else of the
            one that the working folder lies in.
        finder: builds the finder; absent: from the catalogue, kept between calls.
    """

    models: Mapping[str, Path | str]
    threshold: float | Mapping[str, float]
    margins: Mapping[str, float]
    detectors: Sequence[str]
    size: int | None
    threads: int
    cover_options: Mapping[str, Any]
    max_pixels: int
    covers: Mapping[str, str]
    zones: Sequence[Zone | Mapping[str, Any]]
    keep: Sequence[str]
    only: Sequence[str] | str | None
    channels: Order
    purpose: str
    gate: Gate | None
    finder: FinderFactory | None


@dataclass(frozen=True, slots=True, eq=False)
class Redacted:
    """A redacted picture.

    Args:
        image: pixels, of the shape, type and colour order that came in; upright where a file or a Pillow
            image came in.
        regions: what was found; each box is hidden together with the margin of its class.
        receipt: of this call; None inside a `Redactor`, which has one receipt for all its pictures.
        channels: order of the colours in `image`.
    """

    image: NDArray[Any]
    regions: Boxes
    receipt: Receipt | None = None
    channels: Order = "RGB"

    def __repr__(self) -> str:
        return f"Redacted({self.image.shape} {self.image.dtype} {self.channels}, {len(self.regions)} regions)"

    def to_pil(self) -> Image.Image:
        """Return the picture as a Pillow image, without any metadata.

        Raises:
            InvalidRequest: 16-bit colour, which Pillow does not have.
        """
        from sfumato.redaction.pixels import to_pil

        return to_pil(swapped(self.image, self.channels))

    def save(self, path: Path | str) -> Path:
        """Write the picture, whole or not at all, without any metadata; the suffix chooses the format.

        Raises:
            InvalidRequest: a suffix that is not known, or a format that cannot hold these pixels.
        """
        from sfumato.redaction.pixels import save

        return save(swapped(self.image, self.channels), Path(path))


def redact(
    image: NDArray[Any] | Image.Image | str | os.PathLike[str],
    hide: Sequence[str] | str | None = None,
    cover: str | None = None,
    **options: Unpack[Options],
) -> Redacted:
    """Hide faces, people and other things in one picture.

    >>> import numpy as np
    >>> redact(np.zeros((64, 64, 3), np.uint8)).regions.labels
    ()

    Guarantee:
        heuristic: what the detectors find is hidden; what they miss stays. The picture given is not changed.

    Args:
        image: (height, width), (height, width, 3) or (height, width, 4), uint8 or uint16: grey, RGB or RGBA;
            or a Pillow image; or a picture file, turned upright as viewers show it.
        hide: class names, such as ("face", "person"); None: those of the project's policy, else faces. A
            policy may add classes.
        cover: name of a cover; None: that of the policy, else "fill".
        options: see `Options`.

    Returns:
        The picture, what was found in it, and the receipt.

    Raises:
        InvalidRequest: not a picture, or a wrong option; UnknownName suggests the nearest class or cover.
        MissingModel: no installed model finds a class: less than asked is never hidden quietly.
        PolicyRefused: the project's policy forbids it.
        MediaError: the file cannot be read.
    """
    redactor = Redactor(hide, cover, **options)
    if isinstance(image, (str, os.PathLike)):
        redactor._files = (Path(image),)
    with redactor:
        result = redactor(image)
    return replace(result, receipt=redactor.receipt)


class Redactor:
    """Many pictures through one permit: opened once, settled once, with one receipt for all.

    >>> with Redactor(hide="face") as redactor:
    ...     frames = [redactor(np.zeros((32, 32, 3), np.uint8)).image for _ in range(3)]
    >>> redactor.receipt.body["facts"]["pictures"]
    3

    Guarantee:
        As `redact`. A block that ends by an error after a picture was handed out is settled all the same.

    Args:
        hide, cover, options: as for `redact`.

    Attributes:
        receipt: None until the block has ended.
    """

    def __init__(
        self, hide: Sequence[str] | str | None = None, cover: str | None = None, **options: Unpack[Options]
    ) -> None:
        for name in options:
            if name not in Options.__annotations__:
                raise UnknownName("option", name, (*Options.__annotations__, "hide", "cover"))
        self._channels: Order = options.get("channels", "RGB")
        if self._channels not in ("RGB", "BGR"):
            raise InvalidRequest(f"channels must be 'RGB' or 'BGR', got {self._channels!r}")
        self._request = _request(hide, cover, options)
        self._purpose = options.get("purpose", UNDECLARED)
        self._gate, self._finder = options.get("gate"), options.get("finder")
        self._files: tuple[Path, ...] = ()  # known beforehand
        self._root: Path | None = None
        self._regions: Counter[str] = Counter()
        self._pictures = 0
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._ready: Ready | None = None
        self._permit: Permit | None = None
        self.receipt: Receipt | None = None

    def __enter__(self) -> Self:
        if self._permit is not None:
            raise InvalidRequest(
                "this Redactor is in its block already: one receipt cannot be two; make another"
            )
        self._regions, self._pictures, self.receipt = Counter(), 0, None
        with contextlib.ExitStack() as stack:
            gate, root = stack.enter_context(opened(self._gate, *self._files))
            ready = _prepared(self._request, gate.policy, root, self._purpose, self._finder)
            self._permit = stack.enter_context(gate.open(ready.plan))
            self._ready, self._root = ready.charged(self._permit), root
            self._stack = stack.pop_all()
        return self

    def __call__(self, image: NDArray[Any] | Image.Image | str | os.PathLike[str]) -> Redacted:
        """Redact one picture: as `redact`, without a receipt of its own.

        Raises:
            as `redact`; InvalidRequest outside the `with` block, or for a file of another project.
        """
        ready, permit = self._ready, self._permit
        if ready is None or permit is None:
            raise InvalidRequest("a Redactor works inside its block: with Redactor(...) as redactor: ...")
        from sfumato.redaction.images import redact_pixels
        from sfumato.redaction.pixels import array_of

        if self._gate is None and isinstance(image, (str, os.PathLike)):
            self._check_project(Path(image))
        job = ready.jobs["image"]
        given = isinstance(image, np.ndarray)
        pixels = array_of(image, job.settings.max_pixels)
        pixels = swapped(pixels, self._channels) if given else pixels
        done, regions = redact_pixels(pixels, job)
        with self._lock:
            permit.releasing()
            self._pictures += 1
            self._regions.update(regions.labels)
        return Redacted(swapped(done, self._channels), regions, None, self._channels)

    def _check_project(self, file: Path) -> None:
        """Refuse a file that another project than the one at the door rules over."""
        project = Project.find(file)
        if project is not None and project.root != self._root:
            raise InvalidRequest(
                f"{file.name} lies in the project {project.root}, and this Redactor was opened under other "
                "rules: open it with the working folder inside that project"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        permit, ready = self._permit, self._ready
        self._permit = self._ready = None
        try:
            if permit is not None and ready is not None and (kind is None or self._pictures):
                self.receipt = permit.settle(facts=self._facts(ready), event=ready.settled())
        finally:
            self._stack.__exit__(kind, error, trace)

    def _facts(self, ready: Ready) -> dict[str, Any]:
        return {
            "pictures": self._pictures,
            "regions": dict(sorted(self._regions.items())),
            "models": ready.models,
            "settings": ready.settings.describe(),
            "notes": [*ready.notes, "the pictures were handed to the calling program; no file was written"],
        }


def swapped(pixels: NDArray[Any], channels: Order) -> NDArray[Any]:
    """Return pixels with red and blue exchanged where `channels` is "BGR"; alpha stays the last."""
    if channels == "RGB" or pixels.ndim != 3 or pixels.shape[2] < 3:
        return pixels
    return np.ascontiguousarray(pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]])


def _request(hide: Sequence[str] | str | None, cover: str | None, options: Options) -> Request:
    known = {field.name for field in fields(Request)}
    plain: dict[str, Any] = {name: value for name, value in options.items() if name in known}
    plain = {name: value for name, value in plain.items() if value is not None}
    threshold = options.get("threshold")
    if threshold is not None:
        plain["thresholds"] = threshold if isinstance(threshold, Mapping) else {"*": threshold}
    if isinstance(models := plain.get("models"), Mapping):
        plain["models"] = {
            name: Path(path) if isinstance(path, str | os.PathLike) else path for name, path in models.items()
        }
    plain["detectors"] = _words(plain.get("detectors", ()))
    plain["keep"] = _words(plain.get("keep", ()))
    plain["zones"] = tuple(plain.get("zones", ()))
    if plain.get("only") is not None:
        plain["only"] = _words(plain["only"])
    return Request(hide=None if hide is None else _words(hide), cover=cover, **plain)


def _words(words: Any) -> Any:
    """Return one name or several as a tuple; what is neither stays, to be refused by name."""
    if isinstance(words, str):
        return (words,)
    return tuple(words) if isinstance(words, Iterable) else words


_SHELF: OrderedDict[str, Ready] = OrderedDict()
_SHELF_SIZE = 4
_SHELF_LOCK = threading.Lock()


def _prepared(
    request: Request, policy: Policy | None, root: Path, purpose: str, finder: FinderFactory | None
) -> Ready:
    """Return a ready redaction; those of the catalogue are kept, so that a loop loads its models once."""
    if finder is not None:
        return prepare(request, policy=policy, root=root, purpose=purpose, finder=finder)
    rules = policy.redact if policy is not None else None
    paths = [*request.models.values(), *(root / path for path in (rules.models.values() if rules else ()))]
    key = digest_of(
        {
            "request": repr(asdict(request)),
            "rules": repr(rules),
            "populations": repr(policy.populations) if policy is not None else "",
            "root": str(root),
            "purpose": purpose,
            "files": [_state(path) for path in paths],
        }
    )
    with _SHELF_LOCK:
        if key in _SHELF:
            _SHELF.move_to_end(key)
            return _SHELF[key]
    ready = prepare(request, policy=policy, root=root, purpose=purpose)
    with _SHELF_LOCK:
        _SHELF[key] = ready
        while len(_SHELF) > _SHELF_SIZE:
            _SHELF.popitem(last=False)
    return ready


def _state(path: Path) -> list[int]:
    """Return what changes when a weights file is replaced."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ino]
