"""The check inside a run: an output is looked at before it gets its name, and quarantined where it fails."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.core.errors import CheckFailed
from sfumato.redaction.plan import Ready
from sfumato.redaction.tree import Item, Tree, shown

if TYPE_CHECKING:
    from sfumato.redaction.check.run import Checker

QUARANTINE = "quarantine"


class Guard:
    """Checks every output of one run.

    Guarantee:
        An output in which something was found never gets its name: it lies in the quarantine, where nobody
        but its owner reads it, and no receipt names it.

    Args:
        checker: looks.
        folder: the quarantine; made when something fails.
    """

    def __init__(self, checker: Checker, folder: Path) -> None:
        self.checker, self.folder = checker, folder
        self.report = checker.report()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, tree: Tree, ready: Ready) -> Guard:
        """Return the guard of a run: it looks for what the run hides.

        Raises:
            UnknownName, MissingModel: nothing can look for a class.
        """
        from sfumato.redaction.check.looks import make_looker
        from sfumato.redaction.check.run import Checker

        settings = ready.settings
        looker, notes = make_looker(
            settings.hide,
            models=settings.models,
            hid=[model["name"] for model in ready.models],
            threads=settings.threads,
        )
        checker = Checker(
            looker, max_pixels=settings.max_pixels, subtitles=settings.subtitles == "copy", notes=notes
        )
        return cls(checker, quarantine(tree))

    def inspect(self, item: Item, output: Path) -> None:
        """Look at an output, and take it away where it shows something.

        Raises:
            CheckFailed: it did; says what was found and where it lies now.
            MediaError: it cannot be looked at.
        """
        report = self.checker.file(output, item.kind, item.name)
        with self._lock:
            self.report.take(report)
        if report.ok:
            return
        place = _free(self.folder / (item.key or item.target.name))
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.move(os.fspath(output), place)
        place.chmod(0o600)
        first = report.finds[0].line().partition(": ")[2]
        more = f" and {len(report.finds) - 1} more" if len(report.finds) > 1 else ""
        raise CheckFailed(
            f"{item.name}: the check found {first}{more}; the output was moved to {shown(place)}. "
            "Look at it, and hide more (--threshold, --every 1, --detector) if something shows"
        )


def quarantine(tree: Tree) -> Path:
    """Return the folder for what fails: beside the outputs, never among them."""
    return (
        tree.root.parent / QUARANTINE / tree.root.name
        if tree.folder
        else tree.items[0].target.parent / QUARANTINE
    )


def _free(place: Path) -> Path:
    """Return a name beside `place` that is not taken: an earlier failure is evidence, too."""
    number, free = 1, place
    while free.exists():
        number += 1
        free = place.with_name(f"{place.stem}-{number}{place.suffix}")
    return free
