"""A training run: charged whole before it starts, counted step by step, settled to the steps taken.

    with project.training(settings, checkpoint=path, resume=True) as run:
        while run.left:
            run.begin()          # durable, before any noise of the step is drawn
            ...                  # noise through run.permit
        run.release(model, "model.safetensors")

A crash leaves the whole charge standing, and the run can be taken up again from its folder in the project: by
one process, with fresh noise, for the steps that had not begun.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from sfumato.core.entropy import SYSTEM, Entropy
from sfumato.core.errors import IntegrityError, InvalidRequest
from sfumato.core.files import digest_of, whole
from sfumato.core.gate import Gate, Permit
from sfumato.core.numbers import Amount, brief, text
from sfumato.core.project import FOLDER, Project
from sfumato.core.receipt import Output, Receipt
from sfumato.training.checkpoint import Checkpoint, save_tensors
from sfumato.training.journal import Journal, RunRecord, new_key, runs
from sfumato.training.plan import PlannedRun, plan_run
from sfumato.training.settings import TrainingSettings
from sfumato.training.validation import Evaluation, evaluate

if TYPE_CHECKING:
    from sfumato.data.use import Use

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; nothing in it was computed from the data.

    Args:
        step, steps: begun so far, and in all.
        epsilon, delta: an upper bound on what is spent so far, by Rényi losses (for people: what the ledger
            charges is the whole run's price).
        seconds: since this process began.
        loss: mean loss on the step's private images; only with `insecure_debug`, else None.
    """

    step: int
    steps: int
    epsilon: Fraction
    delta: Fraction
    seconds: float
    loss: float | None = None


OnStep = Callable[[Progress], None]


class TrainingRun:
    """A run that was charged; get one from `Project.training`, as a context manager.

    Guarantee:
        Noise is drawn for at most as many steps as were reserved, over all processes that ever had the run;
        no two of them draw at the same time.

    Attributes:
        planned: its settings, plan and price.
        permit: the right to draw noise.
        checkpoint: where `save` writes.
        begun: steps whose noise may have been drawn, by this process and those before it.
        loaded: the checkpoint that the run was taken up from; None for a new run, or where none was written.
    """

    def __init__(
        self,
        planned: PlannedRun,
        permit: Permit,
        journal: Journal,
        record: RunRecord,
        *,
        gate: Gate,
        checkpoint: Path | None = None,
        on_step: Iterable[OnStep] = (),
        loaded: Checkpoint | None = None,
    ) -> None:
        self.planned, self.permit, self.loaded = planned, permit, loaded
        self.checkpoint = checkpoint or journal.folder / CHECKPOINT
        self._gate = gate
        self._journal, self._record, self._on_step = journal, record, tuple(on_step)
        self.begun = self._written = journal.read()
        self.resumed = self.begun if loaded is not None or self.begun else 0
        self._spending = planned.spending()
        self._start, self._pid, self._mutex = time.monotonic(), os.getpid(), threading.Lock()
        self._closed = False
        self.receipt: Receipt | None = None

    @property
    def settings(self) -> TrainingSettings:
        """What was asked."""
        return self.planned.settings

    @property
    def left(self) -> int:
        """How many steps have not begun."""
        return self.planned.steps - self.begun

    @property
    def epsilon(self) -> Fraction:
        """An upper bound on the epsilon of the steps begun so far, for people to look at."""
        return self._spending.after(self.settings.rounds(self.begun))

    def begin(self) -> int:
        """Count a step, durably, before its noise is drawn; return its number, from 1.

        Raises:
            InvalidRequest: every step that was charged has begun, or this is a copy of the process.
            PolicyRefused: another process took the run up.
        """
        with self._mutex:
            self._usable()
            if self.left <= 0:
                raise InvalidRequest(
                    f"all {self.planned.steps} steps that were charged have begun: release the model, or "
                    "plan a new run for more"
                )
            number = self.begun + 1
            if number > self._written:
                upto = min(self.planned.steps, self.begun + self.settings.count_ahead)
                self._journal.begin(upto)
                self._written = upto
            self.begun = number
            self.permit.check()  # after the journal: see core/claims.py
            return number

    def completed(self, loss: float | None = None) -> None:
        """Tell the callbacks about the step; a loss goes no further unless `insecure_debug` was asked for."""
        if not self._on_step:
            return
        progress = Progress(
            self.begun,
            self.planned.steps,
            self.epsilon,
            self.planned.delta,
            time.monotonic() - self._start,
            loss if self.settings.insecure_debug else None,
        )
        for call in self._on_step:
            call(progress)

    def evaluate(
        self,
        scores: Any,
        *,
        epsilon: Amount,
        public_size: int,
        units: Sequence[Hashable] | None = None,
        delta: Amount = 0,
    ) -> Evaluation:
        """Release the mean score of private validation images; a charge of its own (validation.py)."""
        return evaluate(
            self._gate,
            self.planned,
            scores,
            epsilon=epsilon,
            public_size=public_size,
            units=units,
            delta=delta,
        )

    def save(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any] | None = None) -> None:
        """Write the checkpoint.

        Args:
            tensors: by name.
            state: plain data beside them.
        """
        self._usable()
        self.permit.check()
        ours = {
            "ledger": self._record.ledger,
            "reservation": self._record.reservation,
            "digest": self._record.digest,
            "begun": self.begun,
        }
        Checkpoint(dict(tensors), {"run": ours, "more": dict(state or {})}).write(self.checkpoint)

    def release(
        self,
        model: torch.nn.Module | Mapping[str, torch.Tensor],
        path: Path | str,
        *,
        facts: Mapping[str, Any] | None = None,
        guards: Iterable[Callable[[TrainingRun], None]] = (),
    ) -> Receipt:
        """Write the model as a safetensors file with its receipt beside it, and end the run.

        Args:
            model: the model, or its tensors by name.
            path: of the file; the receipt gets `.receipt.json` behind its name.
            facts: for the reader of the receipt; plain data that was not computed from private data.
            guards: each may raise, such as an audit whose bound lies above the claim; nothing leaves then.
        """
        path = Path(path)
        tensors = model.state_dict() if isinstance(model, torch.nn.Module) else dict(model)
        header = {"format": "pt", "made_by": "sfumato", "plan": self._record.digest}
        return self.release_files(
            {path: lambda aside: save_tensors(aside, tensors, header)},
            path.with_name(path.name + ".receipt.json"),
            facts=facts,
            guards=guards,
        )

    def release_files(
        self,
        writes: Mapping[Path, Callable[[Path], None]],
        receipt: Path,
        *,
        facts: Mapping[str, Any] | None = None,
        guards: Iterable[Callable[[TrainingRun], None]] = (),
    ) -> Receipt:
        """Write the model in forms of your own, with one receipt for all of them, and end the run.

        Args:
            writes: file -> what writes it, at the path that it is given; all files appear, or none.
            receipt: the file for the receipt.
            facts, guards: as in `release`.
        """
        self._usable()
        for guard in guards:
            guard(self)
        self.permit.releasing()
        with contextlib.ExitStack() as files:
            made = []
            for path, write in writes.items():
                made.append(files.enter_context(whole(path)))
                write(made[-1])
            settled = self._settle([Output.of(aside) for aside in made], facts)
        settled.write(receipt)
        return settled

    def finish(self, facts: Mapping[str, Any] | None = None) -> Receipt:
        """End the run without a file, and settle it to the steps that began."""
        self._usable()
        return self._settle([], facts)

    def pause(self) -> None:
        """Leave the run as it stands, to be taken up again; its whole charge stands too."""
        self.close()

    def close(self) -> None:
        """Give up the run's folder."""
        if not self._closed:
            self._closed = True
            self._journal.close()

    def _settle(self, outputs: list[Output], facts: Mapping[str, Any] | None) -> Receipt:
        # Rounded up, and over what the caller says: nobody's facts may claim less than was charged.
        told = dict(facts or {}) | {
            "steps": self.begun,
            "epsilon": brief(self.planned.price),
            "delta": text(self.planned.delta),
        }
        if self.resumed:
            told["resumed"] = True
        self.receipt = self.permit.settle(outputs, facts=told, event=self.planned.taken(self.begun))
        self.close()
        return self.receipt

    def _usable(self) -> None:
        if self._closed:
            raise InvalidRequest("this run has ended, or was left; plan a new one, or take it up again")
        if os.getpid() != self._pid:
            raise InvalidRequest("this is a copy of the process that has the run: only the first one goes on")

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            return
        try:
            if not self._closed:
                if kind is None:
                    self.finish()
                elif not self.begun:
                    self.permit.__exit__(kind, error, trace)
        finally:
            self.close()


def open_run(
    project: Project,
    settings: TrainingSettings | None = None,
    *,
    checkpoint: Path | str | None = None,
    resume: bool = False,
    on_step: Iterable[OnStep] = (),
    entropy: Entropy = SYSTEM,
    used: Use | None = None,
    assumes: Iterable[str] = (),
    **asked: Any,
) -> TrainingRun:
    """Charge a run and return it, or take one up again; `Project.training` calls this.

    Args:
        settings: or their values as further keywords.
        checkpoint: where the state is kept; default: in the run's folder.
        resume: take up the run of the checkpoint, or else the newest unfinished one with these settings;
            where there is none, begin a new one.
        on_step: called after each step.
        used: of a version of the catalogue (`sfumato.data.use.use`): whose plan it is, with consent, and with
            everybody who pays.
        assumes: what the guarantee rests on beside the settings, a sentence each, for the receipt.

    Raises:
        PolicyRefused, BudgetSpent, IntegrityError: nothing was charged.
        InvalidRequest: settings that do not do.
    """
    if settings is not None and asked:
        raise InvalidRequest(f"give settings or their values, and not both: {', '.join(asked)}")
    planned = plan_run(settings or TrainingSettings(**asked), project.policy)
    if used is not None:
        planned = planned.of(used)
    planned = planned.resting_on(assumes)
    path = Path(checkpoint) if checkpoint is not None else None
    if resume and (folder := standing(project, planned, path)) is not None:
        return _taken_up(project, planned, folder, path, tuple(on_step), entropy)
    if path is not None and path.exists():
        raise InvalidRequest(
            f"{path} holds the checkpoint of a run: go on with it by resume=True, or name another file"
        )
    key, gate = new_key(), project.gate(entropy=entropy)
    permit = gate.open(planned.plan, key=key)
    try:
        assert permit.reservation is not None
        folder = project.root / FOLDER / "runs" / f"{permit.reservation:012d}"
        record = RunRecord(project.ledger.id, permit.reservation, digest_of(planned.plan.to_data()), key)
        record.write(folder)
        journal = Journal(folder)
        return TrainingRun(planned, permit, journal, record, gate=gate, checkpoint=path, on_step=on_step)
    except BaseException as error:
        permit.__exit__(type(error), error, error.__traceback__)  # nothing was drawn: it is taken back
        raise


def standing(project: Project, planned: PlannedRun, checkpoint: Path | None) -> Path | None:
    """Return the folder of the run to take up; None where there is none."""
    home = project.root / FOLDER
    if checkpoint is not None and checkpoint.exists():
        run = Checkpoint.read(checkpoint).state.get("run", {})
        if run.get("ledger") != project.ledger.id or type(run.get("reservation")) is not int:
            raise InvalidRequest(f"{checkpoint} is of a run of another project's ledger: go on with it there")
        return home / "runs" / f"{run['reservation']:012d}"
    digest = digest_of(planned.plan.to_data())
    for folder in runs(home):
        try:
            record = RunRecord.read(folder)
        except IntegrityError:
            continue  # a crash while it was being made; it had no noise
        same = record.ledger == project.ledger.id and record.digest == digest
        if same and project.ledger.book.end_of(record.reservation) is None:
            return folder
    return None


def _taken_up(
    project: Project,
    planned: PlannedRun,
    folder: Path,
    checkpoint: Path | None,
    on_step: tuple[OnStep, ...],
    entropy: Entropy,
) -> TrainingRun:
    record = RunRecord.read(folder)
    journal = Journal(folder)
    try:
        path, loaded = checkpoint or folder / CHECKPOINT, None
        if path.exists():
            loaded = Checkpoint.read(path)
            if loaded.state["run"]["reservation"] != record.reservation:
                raise InvalidRequest(f"{path} is the checkpoint of another run")
            if (known := loaded.state["run"]["begun"]) > journal.read():
                raise IntegrityError(
                    f"the journal in {folder} counts fewer steps than the checkpoint {path} ({known}): an "
                    "older copy was put back. Restore the newest one."
                )
        gate = project.gate(entropy=entropy)
        permit = gate.resume(record.reservation, planned.plan, key=record.key, steps=journal.read())
        run = TrainingRun(
            planned,
            permit,
            journal,
            record,
            gate=gate,
            checkpoint=checkpoint,
            on_step=on_step,
            loaded=loaded,
        )
        run.resumed = max(run.resumed, 1)
        return run
    except BaseException:
        journal.close()
        raise
