"""The Ray engine: workers of a cluster make the files; this process names them, and keeps the books.

Files travel as bytes, so machines need not share a disk: small ones whole, larger ones in pieces, unless the
path leads to the same file where the worker runs. What is under way is bounded by the number of workers,
however many files there are.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.redaction.engines.cluster import cluster
from sfumato.redaction.engines.parcel import pack, zones_for
from sfumato.redaction.engines.pool import Pool
from sfumato.redaction.engines.worker import BLOCK, Errand, Order, Raised, Reply
from sfumato.redaction.job import Outcome, Progress

if TYPE_CHECKING:
    from sfumato.redaction.plan import Ready
    from sfumato.redaction.sealed.sealer import Sealer
    from sfumato.redaction.tree import Item

#: Files under way for each worker: while one is worked on, the next is read, and the last is written.
AHEAD = 2


@contextlib.contextmanager
def ray_engine(
    ready: Ready,
    files: int,
    *,
    workers: int | None = None,
    address: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[RayEngine]:
    """Yield an engine on a Ray cluster: see `engine_for`."""
    most = None if "video" in ready.jobs else files  # a video has work for many
    wanted = workers if most is None else min(workers or most, most)
    with cluster(address, workers) as (ray, found, folder):
        from ray import cloudpickle

        parcel = pack(ready, cloudpickle.dumps)
        pool = Pool(ray, parcel, max(1, min(wanted or found, found)), note, folder)
        try:
            yield RayEngine(ray, pool, ready)
        finally:
            pool.close()


class RayEngine:
    """Redacts on the workers of a pool.

    Args:
        ray: Ray, connected.
        pool: the workers.
        ready: what to do.
    """

    alone = False

    def __init__(self, ray: Any, pool: Pool, ready: Ready) -> None:
        self.slots = AHEAD * pool.size
        self.pool = pool
        self._ray, self._ready = ray, ready
        self._seconds = 0.0
        self._lock, self._long = threading.Lock(), threading.Lock()

    @property
    def detector_seconds(self) -> float:
        """Time spent inside detectors for this run so far, summed over workers."""
        return self._seconds

    def redact(
        self, item: Item, aside: Path, progress: Progress | None, sealer: Sealer | None = None
    ) -> tuple[Outcome, float]:
        """Write the redacted copy of a file to `aside`: see `Engine`."""
        job = self._ready.jobs[item.kind]
        zones = zones_for(item, job.settings)
        if item.kind == "video":
            from sfumato.redaction.engines.chunks import is_cut

            if is_cut(item.source, aside, job.settings):
                return self._by_chunks(item, aside, zones, progress)
        order = Order(item.kind, item.source.name, aside.suffix, zones)
        whole = item.source.stat().st_size <= BLOCK
        data = self._ray.put(item.source.read_bytes()) if whole else None
        reply = self.pool.run(item.name, lambda worker: self._do(worker, order, item.source, data, aside))
        with self._lock:
            self._seconds += reply.detector_seconds
        return reply.outcome, reply.seconds

    def _by_chunks(
        self, item: Item, aside: Path, zones: tuple[str, ...] | None, progress: Progress | None
    ) -> tuple[Outcome, float]:
        """Redact a long video: tracks are laid and chunks are joined here, all else is done by workers."""
        from sfumato.redaction.engines.chunks import RayHands
        from sfumato.redaction.videos import redact_video_file

        with self._long:  # one has work for all workers, and they keep one video at most
            errand = Errand(item.key or item.name, item.source.name, item.source.stat().st_size, zones)
            hands = RayHands(self._ray, self.pool, errand)
            start = time.perf_counter()
            outcome = redact_video_file(item.source, aside, self._ready.jobs["video"], progress, hands)
        with self._lock:
            self._seconds += hands.detector_seconds
        return outcome, max(hands.seconds, time.perf_counter() - start)

    def _do(self, worker: Any, order: Order, source: Path, data: Any, aside: Path) -> Reply:
        """Have one worker do an order, from sending the file to writing the output."""
        if data is None:
            order = self._sent(worker, order, source)
        answer: Reply | Raised = self._ray.get(worker.redact.remote(order, data))
        if isinstance(answer, Raised):
            raise answer.error
        with aside.open("wb") as file:
            if answer.data is not None:
                file.write(answer.data)
            while answer.data is None and file.tell() < answer.size:
                file.write(self._ray.get(worker.fetch.remote(file.tell())))
        return answer

    def _sent(self, worker: Any, order: Order, source: Path) -> Order:
        """Return the order with the path of a large file, or send its contents piece by piece."""
        found, path = source.stat(), source.absolute()
        if self._ray.get(worker.sees.remote(path, found.st_size, found.st_mtime_ns)):
            return Order(order.kind, order.name, order.suffix, order.zones, path)
        with source.open("rb") as file:
            while block := file.read(BLOCK):
                self._ray.get(worker.receive.remote(order.name, block, file.tell() == len(block)))
        return order

    def charge(self, ready: Ready) -> None:
        """Do nothing: covers that draw noise are refused here."""

    def stop(self) -> None:
        """End the workers: what is under way fails at once."""
        self.pool.stop()
