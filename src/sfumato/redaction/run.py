"""A run: plan, gate, work, receipt."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.core.errors import InvalidRequest
from sfumato.core.gate import UNDECLARED, Gate, Permit
from sfumato.core.receipt import Output, Receipt
from sfumato.redaction.batch import Done, Watch, refuse_existing, work, work_prefix
from sfumato.redaction.check.guard import Guard
from sfumato.redaction.door import opened
from sfumato.redaction.engines import Engine, engine_for
from sfumato.redaction.interrupts import held
from sfumato.redaction.places import Places, Space, strangers
from sfumato.redaction.plan import FinderFactory, Ready, prepare, with_sealing
from sfumato.redaction.request import Request
from sfumato.redaction.result import Run, Stopped, regions_of
from sfumato.redaction.resume import Journal
from sfumato.redaction.settings import Settings
from sfumato.redaction.tree import Failure, Tree, shown, survey
from sfumato.vision.onnx import cores

if TYPE_CHECKING:
    from sfumato.redaction.sealed.room import Room, Wish

#: Bytes held for a receipt: for itself, per output, and for what a project's ledger writes.
ROOM, ROOM_EACH, ROOM_LEDGER = 1 << 14, 256, 1 << 17
NOT_RECORDED = "no project here: nothing was recorded; `sfumato init` starts one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run goes about its work; none of it changes a pixel.

    Args:
        purpose: what the outputs are for, a purpose of the policy.
        resume: skip what an earlier run did and nothing changed since; do the rest.
        overwrite: replace outputs that exist.
        report: write a report with contact sheets of the outputs.
        workers: files worked on at once; None: every core, of this machine or of the cluster.
        check: look at every output as `sfumato check` does before it gets its name; one in which something
            is found goes to a folder `quarantine` beside the outputs, and counts as failed.
        seal: keep what is hidden, encrypted under the keys of the project's vault, for a lawful restore.
            None: only where the policy says so.
        engine: where the work is done: "local", or "ray" for a Ray cluster; the outputs are the same.
        ray_address: of the cluster to join, such as "auto" or "10.0.0.1:6379"; None: RAY_ADDRESS, else one
            of its own on this machine, for this run alone.
    """

    purpose: str = UNDECLARED
    resume: bool = False
    overwrite: bool = False
    report: bool = True
    workers: int | None = None
    check: bool = False
    seal: Wish | None = None
    engine: str = "local"
    ray_address: str | None = None


def redact_files(
    source: Path | str,
    target: Path | str,
    settings: Settings | Request | None = None,
    *,
    gate: Gate | None = None,
    purpose: str = UNDECLARED,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Write redacted copies of a picture, a video, or all of a folder, with a receipt and a report.

    >>> run = redact_files("photos", "safe")  # doctest: +SKIP
    >>> run.done, run.regions  # doctest: +SKIP
    (2, {'face': 3})

    Guarantee:
        - What cannot be done as asked, or is against the policy, is refused before anything is written.
        - An output has its name only when it is whole; a file that could not be made safe has none, and
          inputs are never changed.
        - Nothing leaves without a receipt: it names every output by hash, and no person, file or folder.

    Args:
        source: a file or a folder, walked to its depths.
        target: the file or folder to write; a folder mirrors the source's.
        settings: what to hide and how; None: what the project's policy says, else faces under a fill.
        gate: None: that of the project that the source or the target lies in, else of the working folder's;
            without one nothing is recorded.
        purpose: what the outputs are for, a purpose of the policy.
        resume: go on with an earlier run: skip what is done and unchanged.
        overwrite: replace outputs that exist.
        watch: is told how the run gets on.

    Raises:
        InvalidRequest, PolicyRefused, IntegrityError: nothing was written.
        MediaError: the single file given cannot be made safe.
        BatchFailed: some files of the folder cannot; the others are done.
    """
    options = Options(purpose=purpose, resume=resume, overwrite=overwrite)
    return run_files(Path(source), Path(target), settings, options=options, gate=gate, watch=watch).check()


def run_files(
    source: Path,
    target: Path,
    request: Settings | Request | None = None,
    *,
    options: Options | None = None,
    gate: Gate | None = None,
    finder: FinderFactory | None = None,
    watch: Watch | None = None,
) -> Run:
    """Do what `redact_files` does, and return the run with its failures instead of raising them.

    Args:
        finder: builds the finders; None: those of the catalogue.

    Raises:
        as `redact_files`, but not BatchFailed.
        Stopped: interrupted after some outputs were released.
    """
    options, watch = options or Options(), watch or Watch()
    with opened(gate, source, target) as (door, root):
        start = time.perf_counter()
        tree = survey(source, target)
        pictures = sum(item.kind == "image" for item in tree.items)
        _one_file_for_things_kept(tree, request)
        ready = prepare(
            request,
            policy=door.policy,
            root=root,
            kinds=tree.kinds,
            purpose=options.purpose,
            finder=finder,
            workers=min(cores(), pictures),  # not the engine's: its size must not change a bit of the outputs
        )
        room = _room(door, root, options)
        if room is not None:
            ready = with_sealing(ready, room)
        door.check(ready.plan)
        places = Places.of(tree)
        guard = Guard.of(tree, ready) if options.check else None
        _refuse(tree, source, places, options)
        with (
            engine_for(
                options.engine,
                ready,
                len(tree.items),
                workers=options.workers,
                address=options.ray_address,
                note=watch.note,
            ) as engine,
            _made_folder(tree.root),
            Journal(places.journal) as journal,
        ):
            for note in ready.notes:
                watch.note(note)
            run = _Runner(tree, ready, journal, door, options, watch, places, engine, guard).run(start)
        if run.stopped:
            raise Stopped(run, len(tree.items))
        return run


@dataclass(slots=True)
class _Runner:
    """One run under way."""

    tree: Tree
    ready: Ready
    journal: Journal
    gate: Gate
    options: Options
    watch: Watch
    places: Places
    engine: Engine
    guard: Guard | None = None
    results: list[Done] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    naming: Done | None = None
    space: Space | None = None
    older: tuple[Path, ...] = ()
    stopped: bool = False

    def run(self, start: float) -> Run:
        self.failures += self.tree.failures
        receipt = self._release()
        seconds = time.perf_counter() - start
        report, remark = self._report(receipt)
        return Run(
            receipt=receipt,
            results=tuple(self.results),
            failures=tuple(sorted(self.failures, key=lambda failure: failure.name)),
            left_out=self.tree.left_out,
            notes=(*self._notes(), *([remark] if remark else [])),
            secure=self.ready.secure,
            seconds=seconds,
            work_seconds=sum(result.seconds for result in self.results if not result.skipped),
            detector_seconds=self.engine.detector_seconds,
            receipt_path=self.places.receipt if receipt is not None else None,
            report_path=report,
            older=self.older,
            stopped=self.stopped,
        )

    def _release(self) -> Receipt | None:
        """Work through the gate; None when nothing was released, and the permit is void.

        What was released gets its receipt however the work ended.
        """
        problem: Exception | None = None
        try:
            with self.gate.open(self.ready.plan) as permit:
                self.ready = self.ready.charged(permit)
                self.engine.charge(self.ready)
                results = self._results(permit)
                try:
                    self._take(results)
                except KeyboardInterrupt:
                    self.stopped = True
                except Exception as error:
                    problem = error
                with held() as came:
                    results.close()
                    receipt = self._settle(permit, problem)
                    self.stopped = self.stopped or bool(came)
                    came.clear()
        except _Nothing:
            if self.stopped:
                raise KeyboardInterrupt from None
            return None
        if problem is not None:
            raise problem
        return receipt

    def _results(self, permit: Permit) -> Generator[Done | Failure, None, None]:
        def releasing(done: Done) -> None:
            if self.space is None:
                self._make_way()
            permit.releasing()
            self.naming = done

        self.watch.begin(len(self.tree.items))
        return work(
            self.tree,
            self.ready,
            self.journal,
            resume=self.options.resume,
            releasing=releasing,
            watch=self.watch,
            engine=self.engine,
            inspect=None if self.guard is None else self.guard.inspect,
        )

    def _take(self, results: Iterable[Done | Failure]) -> None:
        for result in results:
            if isinstance(result, Done):
                self.results.append(result)
            else:
                self.failures.append(result)

    def _make_way(self) -> None:
        """Before the first output: hold room for the receipt; what tells of earlier outputs goes."""
        path = self.places.journal.with_name(f"{work_prefix(self.journal)}receipt")
        path.unlink(missing_ok=True)
        ledger = ROOM_LEDGER if self.gate.ledger is not None else 0
        space = Space(path, ROOM + ROOM_EACH * len(self.tree.items) + ledger)
        try:
            self.places.report.unlink(missing_ok=True)  # it shows what an earlier run left uncovered
            self.places.receipt.unlink(missing_ok=True)
        except OSError:
            space.free()
            raise
        self.space = space

    def _settle(self, permit: Permit, problem: Exception | None) -> Receipt:
        """Write the receipt of what was released."""
        self._count_the_last()
        if self.space is not None:
            self.space.free()
        if not self.results:
            raise problem or _Nothing
        if self.tree.folder:
            known = {result.item.target for result in self.results}
            with contextlib.suppress(OSError):  # what others left there cannot even be read
                self.older = tuple(strangers(self.tree.root, {*known, *self.places}))
        try:
            outputs = [result.output for result in self.results]
            receipt = permit.settle(outputs, facts=self._facts(), event=self.ready.settled())
            receipt.write(self.places.receipt)
        except Exception:
            self.watch.note("the outputs have no receipt yet: the same call with --resume makes one")
            raise
        return receipt

    def _count_the_last(self) -> None:
        """Count the output that an interrupt may have hit between its getting its name and being counted."""
        last = self.naming
        if last is None or last in self.results or not last.item.target.is_file():
            return
        if Output.of(last.item.target) == last.output:
            self.results.append(last)

    def _facts(self) -> dict[str, Any]:
        """Return what the receipt tells: numbers, models and settings; no name, no hash of an input."""
        outcomes = [result.outcome for result in self.results]
        skipped = sum(result.skipped for result in self.results)
        return {
            "files": {
                "found": len(self.tree.items) + len(self.tree.failures),
                "done": len(self.results) - skipped,
                "skipped": skipped,
                "failed": len(self.failures),
                "left_out": len(self.tree.left_out),
            },
            "failed_by_reason": dict(sorted(Counter(failure.error for failure in self.failures).items())),
            "regions": regions_of(outcomes),
            "pictures": sum(outcome.kind == "image" for outcome in outcomes),
            "videos": sum(outcome.kind == "video" for outcome in outcomes),
            "frames": sum(outcome.frames for outcome in outcomes),
            "models": self.ready.models,
            "settings": self.ready.settings.describe(),
            "notes": list(self._notes()),
            **({} if self.guard is None else {"tests": [self.guard.report.tested()]}),
            **({} if self.ready.room is None else {"sealed": self.ready.room.sealed}),
        }

    def _notes(self) -> tuple[str, ...]:
        counted = Counter(note for result in self.results for note in dict.fromkeys(result.outcome.notes))
        notes = [*self.ready.notes]
        notes += [f"{note} ({count} file{'s' * (count > 1)})" for note, count in sorted(counted.items())]
        if self.stopped:
            notes.append("the run was stopped before its end")
        if self.older:
            notes.append(
                f"{len(self.older)} other files lie in the output folder: this run did not write them, and "
                "the receipt does not name them"
            )
        if not self.journal.lasting:
            notes.append("a later --resume will do all again: the user's state folder cannot be written")
        return tuple(notes)

    def _report(self, receipt: Receipt | None) -> tuple[Path | None, str]:
        """Write the report, and return where it lies, or why it does not."""
        path, remark = self.places.report, ""
        if receipt is None:
            return None, ""
        if self.options.report and not self.stopped:
            from sfumato.redaction.report import write_report

            outputs = [(result.item.target, result.outcome.kind) for result in self.results]
            try:
                write_report(path, receipt, outputs)
            except OSError as error:
                remark = (
                    f"no report was written: {error.strerror or error}; the outputs and the receipt are whole"
                )
                self.watch.note(remark)
            else:
                return path, ""
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # an earlier run's, which shows other outputs
        return None, remark


class _Nothing(Exception):
    """Nothing was released, so that the permit is taken back."""


def _refuse(tree: Tree, source: Path, places: Places, options: Options) -> None:
    """Refuse what would harm files that are there."""
    if options.resume and options.overwrite:
        raise InvalidRequest(
            "resume keeps what is done and overwrite does everything again: ask for one of them"
        )
    if not (options.resume or options.overwrite):
        beside = [places.receipt, *([places.report] if options.report else [])]
        refuse_existing([*(item.target for item in tree.items), *beside], folder=tree.root)
    if tree.folder and tree.root.exists():
        inside = source.resolve()
        for parent in {item.target.parent for item in tree.items}:
            home = parent.resolve()
            if home == inside or inside in home.parents:
                raise InvalidRequest(
                    f"{shown(parent)} is a link into the source: inputs are never changed in place. Remove "
                    "the link, or choose another output."
                )


def _room(gate: Gate, root: Path, options: Options) -> Room | None:
    """Open the room of sealed originals, where they are asked for."""
    ruled = gate.policy is not None and gate.policy.redact.seal
    if options.seal is None and not ruled:
        return None
    from sfumato.core.project import Project
    from sfumato.redaction.sealed.room import Room

    return Room.of(Project.find(root) if gate.policy is not None else None, options.seal)


@contextlib.contextmanager
def _made_folder(folder: Path) -> Iterator[None]:
    """Make the folder of the outputs; take it away again if nothing came into it."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"the folder {shown(folder)} cannot be made: {error.strerror}") from error
    try:
        yield
    finally:
        for one in made:
            with contextlib.suppress(OSError):
                one.rmdir()  # only works while it is empty


def _one_file_for_things_kept(tree: Tree, request: Request | Settings | None) -> None:
    """Refuse to keep a thing at a place in many files: in another file, another person stands there."""
    things = [wish for wish in (request.keep if request is not None else ()) if "@" in wish]
    if tree.folder and things:
        raise InvalidRequest(
            f"{things[0]} is kept in one file, not in a folder: in another file somebody else may be there. "
            "Redact that file by itself; a zone can be kept in a folder."
        )
