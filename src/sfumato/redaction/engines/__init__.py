"""Engines: where files are worked on. One protocol, and the same bytes whichever is chosen.

An engine makes one redacted file aside. All else stays with the run: the gate and its permit, the journal,
names and receipts, the order of the outputs. So an engine may do a file twice, or lose it half done, and
nothing is released twice or lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.redaction.job import Outcome, Progress

if TYPE_CHECKING:
    from sfumato.redaction.plan import Ready
    from sfumato.redaction.sealed.sealer import Sealer
    from sfumato.redaction.tree import Item

ENGINES = ("local", "ray")


class Engine(Protocol):
    """Makes redacted files; called from several threads at once."""

    slots: int
    """How many files may be under way at once."""
    alone: bool
    """Whether a video is done by itself, with nothing beside it."""

    @property
    def detector_seconds(self) -> float:
        """Time spent inside detectors for this run so far, summed over workers."""
        ...

    def redact(
        self, item: Item, aside: Path, progress: Progress | None, sealer: Sealer | None = None
    ) -> tuple[Outcome, float]:
        """Write the redacted copy of a file to `aside`; return what came of it and the seconds of work.

        `sealer` keeps what is hidden, encrypted.

        Raises:
            MediaError, OSError: it cannot be made safe; nothing is left at `aside`.
        """
        ...

    def charge(self, ready: Ready) -> None:
        """Take over the redaction whose noise is paid for; called before the first file."""
        ...

    def stop(self) -> None:
        """Let what is under way fail soon: nobody waits for it any more."""
        ...


@contextlib.contextmanager
def engine_for(
    name: str,
    ready: Ready,
    files: int,
    *,
    workers: int | None = None,
    address: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[Engine]:
    """Yield the engine of that name, ready to work; what it started is ended afterwards.

    Args:
        name: "local" or "ray".
        ready: what to do.
        files: how many files there are; no more workers than these can use are started.
        workers: workers at once; None: every core, here or of the cluster.
        address: of a Ray cluster to join; None: the one this machine belongs to by RAY_ADDRESS, else one of
            its own, here, for this run alone.
        note: is told what the person who waits should know.

    Raises:
        UnknownName, MissingExtra, InvalidRequest: there is no such engine, or it cannot work.
    """
    if name not in ENGINES:
        raise UnknownName("engine", name, ENGINES)
    if workers is not None and workers < 1:
        raise InvalidRequest(f"workers must be at least 1, got {workers}")
    if name == "ray":
        if ready.room is not None:
            raise InvalidRequest(
                "the engine 'ray' cannot seal originals: the vault's keys never leave this machine. Use "
                "--engine local"
            )
        from sfumato.redaction.engines.ray import ray_engine

        with ray_engine(ready, files, workers=workers, address=address, note=note) as cluster:
            yield cluster
        return
    if address is not None:
        raise InvalidRequest(
            f"the address {address!r} of a Ray cluster was given, and the engine is 'local': add "
            "--engine ray (engine='ray'), or leave the address out"
        )
    from sfumato.redaction.engines.local import Local

    yield Local(ready, files, workers)
