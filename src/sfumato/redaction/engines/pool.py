"""Workers of a cluster that are lent one at a time, and replaced when they end."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sfumato.core.errors import InvalidRequest, MediaError
from sfumato.redaction.engines.worker import Raised, Worker

T = TypeVar("T")

#: How often a file is tried whose worker ends under it. A worker that is killed costs one; a file that kills
#: every worker (by the memory it takes, say) must not go round for ever.
ATTEMPTS = 3
#: Seconds that a worker may take until it is ready, with its detectors built.
PATIENCE = 180.0
#: Seconds that workers may take to clear up.
GOODBYE = 15.0


class Pool:
    """So many workers, each with one thing to do at a time.

    Guarantee:
        What is asked of a worker that ends is asked of another; whoever asks gets one answer, or an error.

    Args:
        ray: Ray, connected.
        parcel: what workers are built from.
        count: workers wanted.
        note: is told of workers that end.
        base: folder on this machine for what workers keep; None: each machine's for temporary files.

    Raises:
        InvalidRequest: no worker came, or one has other software or models than this machine.
    """

    def __init__(
        self, ray: Any, parcel: bytes, count: int, note: Callable[[str], None], base: Path | None = None
    ) -> None:
        self._ray, self._note, self._base = ray, note, base
        self._parcel = ray.put(parcel)
        # Ray would restart a worker by itself, and could not tell what was under way from what was waiting.
        self._class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Worker)
        self._free: queue.Queue[Any] = queue.Queue()
        self._lock = threading.Lock()
        self._alive: list[Any] = []
        self._stopped = False
        self._begin(count)

    def _begin(self, count: int) -> None:
        started = [self._class.remote(self._parcel, self._base) for _ in range(count)]
        asked = {actor.ready.remote(): actor for actor in started}
        came, late = self._ray.wait(list(asked), num_returns=count, timeout=PATIENCE)
        for answer in late:
            self._ray.kill(asked[answer])
        try:
            for answer in came:
                if isinstance(problem := self._ray.get(answer), Raised):
                    raise problem.error
                self._alive.append(asked[answer])
                self._free.put(asked[answer])
        except self._ray.exceptions.RayError as error:
            self.stop()
            raise InvalidRequest(f"a worker of the cluster ended at once: {_said(error)}") from error
        except BaseException:
            self.stop()
            raise
        if late:
            self._note(f"{len(late)} of {count} workers did not start within {PATIENCE:.0f} s")
        if not self._alive:
            raise InvalidRequest(
                f"no worker of the cluster started within {PATIENCE:.0f} s: are its cores taken? "
                "See `ray status`, and wait, or ask for fewer with --workers"
            )

    @property
    def size(self) -> int:
        """How many workers there are now."""
        return len(self._alive)

    def pids(self) -> list[int]:
        """Return the numbers of the workers' processes."""
        return [int(self._ray.get(actor.pid.remote())) for actor in tuple(self._alive)]

    def run(self, name: str, work: Callable[[Any], T]) -> T:
        """Do something with a worker that nobody else has meanwhile.

        Args:
            name: what it is done for, for messages.
            work: gets the worker; done again with another one where that ends under it.

        Raises:
            MediaError: the workers end, one after another; or none is left.
        """
        for _ in range(ATTEMPTS):
            actor = self._take()
            try:
                result = work(actor)
            except self._ray.exceptions.RayTaskError:
                self._free.put(actor)
                raise
            except self._ray.exceptions.RayError as error:
                self._replace(actor, error)
            except BaseException:
                self._free.put(actor)
                raise
            else:
                self._free.put(actor)
                return result
        raise MediaError(
            f"{name}: {ATTEMPTS} workers ended while they worked on it, one after another; does it take more "
            "memory than they have? Redact it by itself with --engine local"
        )

    def _take(self) -> Any:
        while True:
            if self._stopped:
                raise MediaError("the run was stopped")
            if not self._alive:
                raise MediaError("no worker of the cluster is left: start the run again with --resume")
            try:
                return self._free.get(timeout=0.5)
            except queue.Empty:
                continue

    def _replace(self, actor: Any, error: Exception) -> None:
        """Put a new worker in the place of one that ended."""
        with self._lock:
            self._alive.remove(actor)
        if self._stopped:
            return
        self._ray.kill(actor)  # it may only be out of reach, and must not go on
        self._note(f"a worker ended ({_said(error)}); what it had begun is done again by another")
        fresh = self._class.remote(self._parcel, self._base)
        with self._lock:
            self._alive.append(fresh)
        try:
            problem = self._ray.get(fresh.ready.remote(), timeout=PATIENCE)
        except self._ray.exceptions.RayError as again:
            problem = Raised(again)
        if problem is None and not self._stopped:
            self._free.put(fresh)
            return
        with self._lock:
            if fresh in self._alive:
                self._alive.remove(fresh)
        self._ray.kill(fresh)
        if problem is not None and not self._stopped:
            self._note(f"no other worker came in its place ({_said(problem.error)}); {self.size} are left")

    def close(self) -> None:
        """End all workers; those that have nothing to do clear up first."""
        idle = []
        with contextlib.suppress(queue.Empty):
            while not self._stopped:
                idle.append(self._free.get_nowait().leave.remote())
        if idle:
            self._ray.wait(idle, num_returns=len(idle), timeout=GOODBYE)
        self.stop()

    def stop(self) -> None:
        """End all workers, whatever they do."""
        self._stopped = True
        with self._lock:
            alive, self._alive = self._alive, []
        for actor in alive:
            self._ray.kill(actor)


def _said(error: BaseException) -> str:
    """Return what to say of an error of Ray's: its kind, for its text is long and names the machine."""
    return type(error).__name__
