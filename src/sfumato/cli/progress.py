"""How a run gets on: bars on a terminal, a line per remark elsewhere; always on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from sfumato.cli.output import note
from sfumato.redaction.batch import Watch
from sfumato.redaction.tree import Failure, Item


class Plain(Watch):
    """Tells remarks only, one line each."""

    def note(self, text: str) -> None:
        """Print a remark."""
        note(text)


class Bars(Watch):
    """Draws one bar for the files and one for the frames of the video at hand."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Task as RichTask
        from rich.text import Text

        class Speed(ProgressColumn):
            def render(self, task: RichTask) -> Text:
                unit = str(task.fields["unit"])
                return Text(
                    "" if task.speed is None else f"{task.speed:.1f} {unit}", style="progress.data.speed"
                )

        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            Speed(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._files = self._bars.add_task("files", total=None, visible=False, unit="files/s")
        self._frames = self._bars.add_task("frames", total=None, visible=False, unit="fps")

    def begin(self, files: int) -> None:
        """Start the bar of the files."""
        self._bars.update(self._files, total=files, visible=files > 1)

    def start(self, item: Item) -> None:
        """Start the bar of a video's frames."""
        self._bars.reset(self._frames, total=None, visible=True, description=_short(item.name))

    def frames(self, done: int, total: int | None) -> None:
        """Move the bar of the frames; a video is gone through twice."""
        self._bars.update(self._frames, completed=done / 2, total=None if total is None else total / 2)

    def finish(self, item: Item, failure: Failure | None) -> None:
        """Move the bar of the files."""
        self._bars.update(self._frames, visible=False)
        self._bars.advance(self._files)

    def note(self, text: str) -> None:
        """Print a remark above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Yield bars where standard error is a terminal, and plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield Plain()
        return
    bars = Bars()
    with bars._bars:
        yield bars


def _short(name: str, most: int = 32) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"
