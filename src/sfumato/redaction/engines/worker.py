"""What runs in a worker: built once with its detectors, it makes redacted bytes, and releases nothing."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Generic, TypeVar

from sfumato.redaction.engines.local import redact_one
from sfumato.redaction.engines.parcel import build, unpack, with_zones
from sfumato.redaction.job import Job, Outcome
from sfumato.redaction.resume import lock

if TYPE_CHECKING:
    from sfumato.redaction.plan import Kind
    from sfumato.redaction.videos.encode import Coded
    from sfumato.redaction.videos.looking import ChunkSights
    from sfumato.redaction.videos.making import Edit
    from sfumato.redaction.videos.survey import Survey

T = TypeVar("T")

#: Files up to this size travel as they are; larger ones in pieces of this size, where no path leads to them.
BLOCK = 16 << 20

PREFIX = "sfumato-worker-"


@dataclass(frozen=True, slots=True)
class Order:
    """One file to redact.

    Args:
        kind: what it is.
        name: of the file, for messages.
        suffix: of the output.
        zones: names of those that are meant for it; None: all.
        source: where it lies for this worker as well; None: it is sent.
    """

    kind: Kind
    name: str
    suffix: str
    zones: tuple[str, ...] | None = None
    source: Path | None = None


@dataclass(frozen=True, slots=True)
class Errand:
    """A video whose chunks are worked on.

    Args:
        key: tells it from other videos of the run.
        name: of the file, for messages.
        zones: names of those that are meant for it; None: all.
        size: in bytes.
        source: where it lies for this worker as well; None: it was sent, see `Worker.keep`.
    """

    key: str
    name: str
    size: int
    zones: tuple[str, ...] | None = None
    source: Path | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of an order.

    Args:
        outcome: what was hidden.
        size: of the output, in bytes.
        data: the output; None: it is fetched in pieces, by `Worker.fetch`.
        seconds: of work.
        detector_seconds: of these, inside the detectors.
    """

    outcome: Outcome
    size: int
    data: bytes | None
    seconds: float
    detector_seconds: float


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """What came of one chunk, the seconds of work, and those inside the detectors."""

    result: T
    seconds: float
    detector_seconds: float


@dataclass(frozen=True, slots=True)
class Raised:
    """An error that travels back as it is."""

    error: BaseException

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        """Wrap an error, or one that reads the same where it cannot be pickled."""
        with contextlib.suppress(Exception):
            again = pickle.loads(pickle.dumps(error))
            if type(again) is type(error) and str(again) == str(error):
                return cls(again)
        return cls(RuntimeError(f"{type(error).__name__}: {error}"))


class Worker:
    """Redacts one file at a time.

    Args:
        parcel: what `pack` made.
        base: folder for what it keeps, whose owner empties it; None: that for temporary files.
    """

    def __init__(self, parcel: bytes, base: Path | None = None) -> None:
        self._home = _Home(base)
        self._problem: Raised | None = None
        self._jobs: dict[Kind, Job] = {}
        self._output: Path | None = None
        self._kept: str | None = None
        try:
            os.environ["SFUMATO_MODELS"] = str(self._home.folder / "cache")  # this process works for one run
            self._jobs = build(unpack(parcel, self._home.folder))
        except Exception as error:
            self._problem = Raised.of(error)

    def ready(self) -> Raised | None:
        """Return None once this worker can work, or why it cannot."""
        return self._problem

    def leave(self) -> None:
        """Remove what this worker keeps; nothing can be asked of it afterwards."""
        self._home.leave()

    def pid(self) -> int:
        """Return the number of this worker's process."""
        return os.getpid()

    def sees(self, source: Path, size: int, changed: int) -> bool:
        """Say whether a path leads to the same file here, by its size and the time of its last change."""
        with contextlib.suppress(OSError):
            found = source.stat()
            return (found.st_size, found.st_mtime_ns) == (size, changed)
        return False

    def receive(self, name: str, block: bytes, start: bool) -> None:
        """Take the next piece of the file for the next order."""
        with (self._home.arrivals(fresh=start) / name).open("ab") as file:
            file.write(block)

    def redact(self, order: Order, data: bytes | None = None) -> Reply | Raised:
        """Do an order; an error is returned.

        Args:
            order: what to do.
            data: the file's contents; None: it is at `order.source`, or has been received.
        """
        try:
            return self._redact(order, data)
        except Exception as error:
            return Raised.of(error)
        finally:
            self._home.arrivals(fresh=True)

    def _redact(self, order: Order, data: bytes | None) -> Reply:
        source = order.source or self._home.arrivals(fresh=data is not None) / order.name
        if data is not None:
            source.write_bytes(data)
        output = self._home.outputs() / f"output{order.suffix}"
        job = with_zones(self._jobs[order.kind], order.zones)
        start, before = time.perf_counter(), job.finder.seconds
        outcome = redact_one(source, output, order.kind, job)
        seconds, detecting = time.perf_counter() - start, job.finder.seconds - before
        size = output.stat().st_size
        if size > BLOCK:
            self._output = output
            return Reply(outcome, size, None, seconds, detecting)
        return Reply(outcome, size, output.read_bytes(), seconds, detecting)

    def keep(self, errand: Errand, block: bytes, start: bool) -> None:
        """Take the next piece of a video whose chunks will be asked for, in place of the last such video."""
        self._kept = None
        folder = self._home.kept(fresh=start)
        with (folder / errand.name).open("ab") as file:
            file.write(block)
            if file.tell() == errand.size:
                self._kept = errand.key

    def has(self, errand: Errand) -> bool:
        """Say whether the whole of a video was sent to this worker."""
        return self._kept == errand.key

    def look(self, errand: Errand, survey: Survey, index: int) -> Part[ChunkSights] | Raised:
        """Look at one chunk of a video; an error is returned."""
        from sfumato.redaction.videos.looking import look

        return self._chunk(errand, lambda source, job: look(source, survey, index, job))

    def make(self, errand: Errand, edit: Edit, index: int) -> Part[list[Coded]] | Raised:
        """Make one chunk of a video; an error is returned."""
        from sfumato.redaction.videos.making import make

        return self._chunk(errand, lambda source, job: list(make(source, edit, index, job)))

    def _chunk(self, errand: Errand, work: Callable[[Path, Job], T]) -> Part[T] | Raised:
        try:
            source = errand.source or self._home.kept(fresh=False) / errand.name
            job = with_zones(self._jobs["video"], errand.zones)
            start, before = time.perf_counter(), job.finder.seconds
            result = work(source, job)
            return Part(result, time.perf_counter() - start, job.finder.seconds - before)
        except Exception as error:
            return Raised.of(error)

    def fetch(self, offset: int) -> bytes:
        """Return the piece of the last output that begins there."""
        assert self._output is not None
        with self._output.open("rb") as file:
            file.seek(offset)
            return file.read(BLOCK)


class _Home:
    """A private folder for what arrives; what killed workers left in theirs on this machine is removed."""

    def __init__(self, base: Path | None) -> None:
        if base is None:
            base = Path(tempfile.gettempdir())
            sweep(base, PREFIX)
        self.folder, self._lock = claimed(base, PREFIX)

    def leave(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def arrivals(self, *, fresh: bool) -> Path:
        """Return the folder for files that are sent, emptied if asked."""
        return self._folder("arrivals", fresh)

    def kept(self, *, fresh: bool) -> Path:
        """Return the folder for the video whose chunks are worked on, emptied if asked."""
        return self._folder("kept", fresh)

    def outputs(self) -> Path:
        """Return an empty folder for the next output."""
        return self._folder("outputs", True)

    def _folder(self, name: str, fresh: bool) -> Path:
        folder = self.folder / name
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        return folder


def claimed(base: Path, prefix: str) -> tuple[Path, BinaryIO]:
    """Make a private folder that is not swept away while the file returned with it stays open."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
        file = (folder / "lock").open("ab")
        with contextlib.suppress(BlockingIOError):  # one that sweeps took it for a dead one's
            lock(file.fileno())
            if (folder / "lock").exists():
                return folder, file
        file.close()


def sweep(base: Path, prefix: str) -> None:
    """Remove the folders below `base` whose lock nobody holds any more."""
    for left in base.glob(f"{prefix}*"):
        if left.is_symlink():
            continue
        with contextlib.suppress(OSError), (left / "lock").open("rb+") as file:
            if lock(file.fileno()):
                shutil.rmtree(left, ignore_errors=True)
