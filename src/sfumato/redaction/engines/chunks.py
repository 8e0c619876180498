"""Long videos on a cluster: their chunks are looked at and made by whichever workers are free."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sfumato.redaction.engines.pool import Pool
from sfumato.redaction.engines.worker import BLOCK, Errand, Part, Raised
from sfumato.redaction.videos.hands import in_order
from sfumato.redaction.videos.target import target_of

if TYPE_CHECKING:
    from sfumato.redaction.settings import Settings
    from sfumato.redaction.videos.encode import Coded
    from sfumato.redaction.videos.looking import ChunkSights, Told
    from sfumato.redaction.videos.making import Edit
    from sfumato.redaction.videos.survey import Survey

T = TypeVar("T")


def is_cut(source: Path, target: Path, settings: Settings) -> bool:
    """Say whether a video has several chunks; one that cannot be read has none, and its worker says why."""
    from sfumato.redaction.videos.survey import survey

    with contextlib.suppress(Exception):  # of FFmpeg's, too
        return len(survey(source, target_of(target), settings).chunks) > 1
    return False


class RayHands:
    """Works on the chunks of one video with the workers of a pool.

    Args:
        ray: Ray, connected.
        pool: the workers.
        errand: the video.
    """

    def __init__(self, ray: Any, pool: Pool, errand: Errand) -> None:
        self._ray, self._pool, self._errand = ray, pool, errand
        self._lock = threading.Lock()
        self.seconds = 0.0
        self.detector_seconds = 0.0

    def looks(self, source: Path, survey: Survey, told: Told) -> Generator[ChunkSights, None, None]:
        """Yield what every chunk shows: see `Hands`."""
        shared = self._ray.put(survey)
        done = 0

        def work(index: int) -> ChunkSights:
            nonlocal done
            part: ChunkSights = self._on_some_worker(
                source, lambda worker, errand: worker.look.remote(errand, shared, index)
            )
            with self._lock:
                done += len(part.times)
                told(done)
            return part

        yield from in_order(len(survey.chunks), work, self._pool.size + 1)

    def makes(self, source: Path, edit: Edit) -> Generator[Coded, None, None]:
        """Yield the coded pictures of every chunk: see `Hands`."""
        shared = self._ray.put(edit)

        def work(index: int) -> list[Coded]:
            made: list[Coded] = self._on_some_worker(
                source, lambda worker, errand: worker.make.remote(errand, shared, index)
            )
            return made

        with contextlib.closing(in_order(len(edit.survey.chunks), work, self._pool.size + 1)) as chunks:
            for chunk in chunks:
                yield from chunk

    def _on_some_worker(self, source: Path, ask: Callable[[Any, Errand], Any]) -> Any:
        def work(worker: Any) -> Part[Any] | Raised:
            answer: Part[Any] | Raised = self._ray.get(ask(worker, self._sent(worker, source)))
            return answer

        answer = self._pool.run(self._errand.name, work)
        if isinstance(answer, Raised):
            raise answer.error
        with self._lock:
            self.seconds += answer.seconds
            self.detector_seconds += answer.detector_seconds
        return answer.result

    def _sent(self, worker: Any, source: Path) -> Errand:
        """Return the errand for one worker: with a path where that leads to the video, else with it sent."""
        found, path = source.stat(), source.absolute()
        if self._ray.get(worker.sees.remote(path, found.st_size, found.st_mtime_ns)):
            return replace(self._errand, source=path)
        if not self._ray.get(worker.has.remote(self._errand)):
            with source.open("rb") as file:
                while block := file.read(BLOCK):
                    first = file.tell() == len(block)
                    self._ray.get(worker.keep.remote(self._errand, block, first))
        return self._errand
