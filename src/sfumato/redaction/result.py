"""What came of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sfumato.core.errors import BatchFailed
from sfumato.core.receipt import Receipt
from sfumato.redaction.batch import Done
from sfumato.redaction.job import Outcome
from sfumato.redaction.tree import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of a run.

    Args:
        receipt: of all outputs that are there and valid now; None: nothing was released.
        results: one entry per output, in order.
        failures: files that were not made safe; nothing was written for them, and what an earlier run wrote
            for them is named in the reason.
        left_out: (name, why) of files that are no media.
        notes: sentences for the person who asked.
        secure: whether the cover leaves nothing of what it hides.
        seconds: the whole run, without the report.
        work_seconds: spent on files, summed over the workers.
        detector_seconds: of these, inside the detectors.
        receipt_path, report_path: where they lie; None where there is none.
        older: files in the output folder that this run did not write and the receipt does not name.
        stopped: whether it was interrupted before the end.
    """

    receipt: Receipt | None
    results: tuple[Done, ...]
    failures: tuple[Failure, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    secure: bool = True
    seconds: float = 0.0
    work_seconds: float = 0.0
    detector_seconds: float = 0.0
    receipt_path: Path | None = None
    report_path: Path | None = None
    older: tuple[Path, ...] = ()
    stopped: bool = False

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What came of each output, without names."""
        return tuple(result.outcome for result in self.results)

    @property
    def done(self) -> int:
        """Files that this run redacted."""
        return len(self.results) - self.skipped

    @property
    def skipped(self) -> int:
        """Files that an earlier run had redacted."""
        return sum(result.skipped for result in self.results)

    @property
    def regions(self) -> dict[str, int]:
        """Class -> regions (pictures) and tracks (videos) hidden."""
        return regions_of(self.outcomes)

    @property
    def ratio(self) -> float | None:
        """Work per second of bare detection; None where no detector ran."""
        return self.work_seconds / self.detector_seconds if self.detector_seconds else None

    def check(self) -> Run:
        """Return this run if every file was made safe.

        Raises:
            BatchFailed: lists those that were not, with the reasons.
        """
        if not self.failures:
            return self
        total = len(self.failures) + len(self.results)
        lines = [f"  {failure.name}: {failure.reason}" for failure in self.failures]
        head = f"{len(self.failures)} of {total} files could not be redacted; nothing was written for:"
        raise BatchFailed(
            "\n".join([head, *lines]),
            [(failure.name, failure.reason) for failure in self.failures],
        )


class Stopped(KeyboardInterrupt):
    """A run was interrupted; what was done by then has its receipt."""

    def __init__(self, run: Run, files: int) -> None:
        self.run = run
        super().__init__(
            f"stopped after {len(run.results)} of {files} files; the same call with --resume (resume=True) "
            "does the rest"
        )


def regions_of(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Return class -> regions, summed over files."""
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update(outcome.regions)
    return dict(sorted(total.items()))
