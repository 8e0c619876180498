"""Doing many files: each is made aside, and gets its name only when it is whole and remembered."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.core.errors import InvalidRequest, MediaError
from sfumato.core.files import sync_folder
from sfumato.core.receipt import Output
from sfumato.redaction.engines import Engine
from sfumato.redaction.interrupts import held
from sfumato.redaction.job import Outcome, Progress
from sfumato.redaction.plan import Ready
from sfumato.redaction.resume import Journal, Record
from sfumato.redaction.tree import Failure, Item, Tree, shown
from sfumato.vision.onnx import cores

if TYPE_CHECKING:
    from sfumato.redaction.sealed.room import Room

#: Files that may be made, for each one under way, before those in front of them have their names: so a long
#: one does not hold up the others.
WINDOW = 16


class Watch:
    """Told how a run gets on; override what you want to hear. `frames` is called from other threads."""

    def begin(self, files: int) -> None:
        """So many files will be redacted."""

    def start(self, item: Item) -> None:
        """A video begins."""

    def frames(self, done: int, total: int | None) -> None:
        """So many frames of the video are done, over all passes."""

    def finish(self, item: Item, failure: Failure | None) -> None:
        """A file is done, or failed."""

    def note(self, text: str) -> None:
        """Something that the person who waits should know."""


#: Given an item and where its output lies; may raise, and take the output away.
Inspect = Callable[[Item, Path], None]


@dataclass(frozen=True, slots=True)
class Done:
    """A file that is safe now: what was written, and whether it had been before this run."""

    item: Item
    outcome: Outcome
    output: Output
    skipped: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class _Made:
    """A file that is made, and does not have its name yet; `aside` is None where it had one before.

    `sealed` is its sealed originals, with the keyed hash of its source; None where there are none.
    """

    item: Item
    record: Record
    aside: Path | None
    seconds: float
    sealed: tuple[Path, str] | None = None


def work(
    tree: Tree,
    ready: Ready,
    journal: Journal,
    *,
    resume: bool,
    releasing: Callable[[Done], None],
    watch: Watch,
    engine: Engine,
    inspect: Inspect | None = None,
) -> Generator[Done | Failure, None, None]:
    """Redact every file of a tree, in order, and yield what came of each.

    Guarantee:
        - `releasing` is called with each output just before it gets its name, so that one whose naming is
          interrupted is known too.
        - An output has its name only when it is whole; a failed file leaves what was there before, and the
          failure says so.
        - Results come in the order of the items, whatever the engine, and at most as many files are under
          way at once as the engine has slots.

    Args:
        resume: leave files alone that the journal knows to be done and unchanged.
        engine: makes the outputs aside.
        inspect: looks at each output before it gets its name, and at those that an earlier run left; raises
            and takes it away where it must not be released.
    """
    room = ready.room
    with _staging(journal) as folder, _sealing(room, journal) as vestry:

        def make(item: Item, number: int) -> _Made:
            progress = watch.frames if item.kind == "video" and told else None
            seal = None if room is None or vestry is None else _Seal(room, vestry / str(number))
            made = _make(
                item,
                ready,
                journal,
                folder / str(number),
                engine,
                resume=resume,
                progress=progress,
                seal=seal,
            )
            if inspect is not None:
                with looking:  # an engine may have more slots than this machine has cores
                    inspect(item, made.aside or item.target)
            return made

        looking = threading.Semaphore(cores())
        told = engine.alone or len(tree.items) == 1
        with contextlib.closing(_in_order(tree.items, make, watch, engine)) as results:
            for item, result in results:
                try:
                    done = _publish(result(), journal, releasing, ready.room)
                except Exception as error:
                    older = _older(item)
                    if not tree.folder:
                        if older and isinstance(error, MediaError):
                            raise type(error)(f"{error}; {older}") from error
                        raise
                    failure = Failure.of(item.name, error)
                    if older:
                        failure = replace(failure, reason=f"{failure.reason}; {older}")
                    watch.finish(item, failure)
                    yield failure
                else:
                    watch.finish(item, None)
                    yield done


def _older(item: Item) -> str:
    """Return what to say of an output that an earlier run left where this one failed; it may hide less."""
    if not item.target.exists():
        return ""
    return f"an older output was left at {shown(item.target)}, and no receipt of this run names it"


def _in_order(
    items: Sequence[Item], make: Callable[[Item, int], _Made], watch: Watch, engine: Engine
) -> Generator[tuple[Item, Callable[[], _Made]], None, None]:
    """Yield each item with a call that returns what was made of it, or raises."""
    pool = ThreadPoolExecutor(engine.slots, thread_name_prefix="sfumato")
    waiting: deque[tuple[Item, Future[_Made]]] = deque()
    ended = False
    try:
        for number, item in enumerate(items):
            alone = item.kind == "video" and engine.alone
            while waiting and (len(waiting) > WINDOW * engine.slots or alone):
                before, future = waiting.popleft()
                yield before, future.result
            if item.kind == "video" and (engine.alone or len(items) == 1):
                watch.start(item)
            if alone:  # it has threads of its own
                yield item, partial(make, item, number)
            else:
                waiting.append((item, pool.submit(make, item, number)))
        while waiting:
            before, future = waiting.popleft()
            yield before, future.result
        ended = True
    finally:
        with held():  # a thread that still works must not outlive its folder, or Python
            pool.shutdown(wait=False, cancel_futures=True)
            if not ended:
                engine.stop()
            pool.shutdown(wait=True)


@dataclass(frozen=True, slots=True)
class _Seal:
    """Where the originals of one file are sealed, before they are kept."""

    room: Room
    aside: Path


def _make(
    item: Item,
    ready: Ready,
    journal: Journal,
    folder: Path,
    engine: Engine,
    *,
    resume: bool,
    progress: Progress | None,
    seal: _Seal | None = None,
) -> _Made:
    """Redact one file to a place aside, or find that it is done."""
    start = time.perf_counter()
    made_from = journal.made_from(item.source, ready.digest(item.kind))
    known = journal.find(item.key, made_from, item.target) if resume else None
    if known is not None and (seal is None or _is_sealed(known, item, seal.room)):
        return _Made(item, known, None, time.perf_counter() - start)
    folder.mkdir()
    aside = folder / f"output{item.target.suffix}"
    try:
        sealer = None if seal is None else seal.room.begin(item.source, seal.aside)
        outcome, seconds = engine.redact(item, aside, progress, sealer)
        record = Record(made_from, Output.of(aside), outcome)
        sealed = None if seal is None or sealer is None else seal.room.join(sealer, record.output)
    except BaseException:
        for left in (folder, *([] if seal is None else [seal.aside])):
            shutil.rmtree(left, ignore_errors=True)
        raise
    kept = None if sealed is None or sealer is None else (sealed, sealer.source)
    return _Made(item, record, aside, seconds, kept)


def _is_sealed(record: Record, item: Item, room: Room) -> bool:
    """Whether a file that an earlier run did has its originals sealed, where anything was hidden in it."""
    return not record.outcome.regions or room.holds(record.output, item.source)


def _sealing(room: Room | None, journal: Journal) -> contextlib.AbstractContextManager[Path | None]:
    if room is None:
        return contextlib.nullcontext()
    return room.staging(work_prefix(journal), exclusive=journal.exclusive)


def _publish(
    made: _Made, journal: Journal, releasing: Callable[[Done], None], room: Room | None = None
) -> Done:
    """Give a made file its name; its sealed originals are kept before."""
    item, record = made.item, made.record
    done = Done(item, record.outcome, record.output, made.aside is None, made.seconds)
    if made.aside is not None:
        item.target.parent.mkdir(parents=True, exist_ok=True)
        releasing(done)
        journal.add(item.key, record)
        if room is not None and made.sealed is not None:
            room.keep(made.sealed[0], record.output, made.sealed[1])
        made.aside.replace(item.target)
        sync_folder(item.target.parent)
        with contextlib.suppress(OSError):  # the output has its name; a folder left behind is swept later
            made.aside.parent.rmdir()
    return done


@contextlib.contextmanager
def _staging(journal: Journal) -> Iterator[Path]:
    """Yield an empty folder on the target's disk; what killed runs left of theirs is swept away first."""
    prefix = work_prefix(journal)
    if journal.exclusive:
        for left in journal.path.parent.glob(f"{prefix}*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=journal.path.parent))
    try:
        yield folder
    finally:
        with held():
            shutil.rmtree(folder, ignore_errors=True)


def work_prefix(journal: Journal) -> str:
    """Return how the names of what a run writes aside begin; a later run sweeps away what is left of it."""
    return f".sfumato-work-{sha256(os.fsencode(journal.path.name)).hexdigest()[:8]}-"


def refuse_existing(paths: Iterable[Path], *, folder: Path) -> None:
    """Refuse to write over files that are there.

    Raises:
        InvalidRequest: some are; the ways out are named.
    """
    there = [path for path in paths if path.exists() or path.is_symlink()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise InvalidRequest(
            f"{shown(there[0])}{more} exists already and would be written over. Go on with an earlier run by "
            f"--resume (resume=True), replace by --overwrite (overwrite=True), or choose another output than "
            f"{shown(folder)}."
        )
