"""The local engine: threads of this process, all cores of this machine."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.redaction.job import Job, Outcome, Progress
from sfumato.vision.onnx import cores

if TYPE_CHECKING:
    from sfumato.redaction.plan import Kind, Ready
    from sfumato.redaction.sealed.sealer import Sealer
    from sfumato.redaction.tree import Item

#: Room that one picture takes while it is worked on: the detector's inner layers, and 24 megapixels decoded,
#: covered and encoded. Workers are no more than have this room, whatever the cores.
ROOM = 512 << 20


class Local:
    """Redacts in this process.

    Args:
        ready: what to do.
        files: how many files there are.
        workers: pictures at once, or twice the chunks of a video; None: one per core, as memory goes.
    """

    alone = True

    def __init__(self, ready: Ready, files: int, workers: int | None = None) -> None:
        most = workers or _workers()
        self.slots = max(1, min(most, files))
        self._chunks = max(1, most // 2)  # a chunk keeps two busy: one decodes, one covers and encodes
        self._ready = ready
        self._before = ready.detector_seconds

    @property
    def detector_seconds(self) -> float:
        """Time spent inside detectors for this run so far, summed over threads."""
        return self._ready.detector_seconds - self._before

    def redact(
        self, item: Item, aside: Path, progress: Progress | None, sealer: Sealer | None = None
    ) -> tuple[Outcome, float]:
        """Write the redacted copy of a file to `aside`: see `Engine`."""
        start = time.perf_counter()
        job = self._ready.jobs[item.kind]
        outcome = redact_one(item.source, aside, item.kind, job, progress, self._chunks, sealer)
        return outcome, time.perf_counter() - start

    def charge(self, ready: Ready) -> None:
        """Take over the redaction whose noise is paid for: see `Engine`."""
        self._ready = ready

    def stop(self) -> None:
        """Do nothing: a thread cannot be ended, and what it makes is thrown away."""


def redact_one(
    source: Path,
    target: Path,
    kind: Kind,
    job: Job,
    progress: Progress | None = None,
    chunks: int = 1,
    sealer: Sealer | None = None,
) -> Outcome:
    """Write a redacted copy of a picture or a video; of that, so many chunks are worked on at once."""
    if kind == "video":
        from sfumato.redaction.videos import redact_video_file
        from sfumato.redaction.videos.hands import OwnHands

        return redact_video_file(source, target, job, progress, OwnHands(job, chunks, sealer), sealer)
    from sfumato.redaction.images import redact_image_file

    return redact_image_file(source, target, job, sealer)


def _workers() -> int:
    """Return how many pictures can be worked on at once: as many as cores, and as there is memory for."""
    free = free_memory()
    return cores() if free is None else max(1, min(cores(), free // ROOM))


def free_memory() -> int | None:
    """Return the bytes of memory that this process could still take; None where the system does not say."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) << 10)
    with contextlib.suppress(OSError, ValueError):  # a container's limit; "max" is none
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(counts.get("inactive_file", 0))
        found.append(max(0, limit - used))
    return min(found, default=None)
