"""Who works on the chunks of a video: threads of this process, or others."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from sfumato.redaction.job import Job
from sfumato.redaction.sealed.sealer import Sealer
from sfumato.redaction.videos.encode import Coded
from sfumato.redaction.videos.looking import ChunkSights, Told, look
from sfumato.redaction.videos.making import Edit, make
from sfumato.redaction.videos.survey import Survey

T = TypeVar("T")


class Hands(Protocol):
    """Looks at chunks, and makes them.

    Guarantee:
        What comes of a chunk is what `look` and `make` return for it, whoever works and however often.
    """

    def looks(self, source: Path, survey: Survey, told: Told) -> Generator[ChunkSights, None, None]:
        """Yield what every chunk shows, in order; `told` is called with the frames done in all."""
        ...

    def makes(self, source: Path, edit: Edit) -> Generator[Coded, None, None]:
        """Yield the coded pictures of every chunk, in order."""
        ...


class OwnHands:
    """Works in this process.

    Args:
        job: finder and covers.
        at_once: chunks worked on at once.
        sealer: keeps what is hidden, encrypted.
    """

    def __init__(self, job: Job, at_once: int = 1, sealer: Sealer | None = None) -> None:
        self._job, self._at_once, self._sealer = job, at_once, sealer

    def looks(self, source: Path, survey: Survey, told: Told) -> Generator[ChunkSights, None, None]:
        """Yield what every chunk shows: see `Hands`."""
        count = len(survey.chunks)
        seen, lock = [0] * count, threading.Lock()

        def work(index: int) -> ChunkSights:
            def tell(done: int) -> None:
                with lock:
                    seen[index] = done
                    told(sum(seen))

            return look(source, survey, index, self._job, tell)

        if min(self._at_once, count) > 1:
            yield from in_order(count, work, self._at_once)
        else:
            yield from map(work, range(count))

    def makes(self, source: Path, edit: Edit) -> Generator[Coded, None, None]:
        """Yield the coded pictures of every chunk: see `Hands`."""
        count = len(edit.survey.chunks)
        if min(self._at_once, count) > 1:

            def work(index: int) -> list[Coded]:
                return list(make(source, edit, index, self._job, self._sealer))

            with contextlib.closing(in_order(count, work, self._at_once)) as chunks:
                for coded in chunks:
                    yield from coded
            return
        for index in range(count):  # one is best passed on as it comes
            with contextlib.closing(make(source, edit, index, self._job, self._sealer)) as chunk:
                yield from chunk


def in_order(count: int, work: Callable[[int], T], at_once: int) -> Generator[T, None, None]:
    """Yield `work(0)`, `work(1)`, ... done by so many threads, which are at most as many ahead.

    >>> list(in_order(3, lambda number: number * number, 2))
    [0, 1, 4]
    """
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="sfumato-chunk")
    waiting: deque[Future[T]] = deque()
    try:
        for number in range(count):
            if len(waiting) > at_once:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, number))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
