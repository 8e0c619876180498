"""Which kernel a parameter's gradients are taken by: timed once on the real shapes, under a memory rule.

Arithmetic alone does not tell: a grouped convolution costs 1.0 or 6 times the plain weight gradient, as
shapes go. The choice only moves time and rounding, never what is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sfumato.training.engine.grouping import Grouping
from sfumato.training.engine.terms import Kept, Kernel, Term, square_norms

#: Per-image gradients are kept where they are at most so many times the activations that they replace.
KEEP = 2.0

#: Bytes of gradients that are taken at a time where they are not kept: they never leave the cache.
CACHE = 2**20

#: Bytes of activations that kernels are timed on.
SAMPLE = 2**21

#: A kernel whose first run takes so many times the fastest one's is not tried again.
FAR = 4.0

_chosen: dict[tuple[object, ...], str] = {}
_forced: list[str] = []


@contextmanager
def forced(*names: str) -> Iterator[None]:
    """Take the first of these kernels that a term has, as tests do; "NAME, not kept" keeps nothing."""
    _forced[:] = names
    try:
        yield
    finally:
        _forced.clear()


def candidates(term: Term, numbers: int, grouping: Grouping) -> list[Kernel]:
    """Return the kernels that the memory rule leaves; those that would keep too much go by parts."""
    size = grouping.units * numbers * term.itemsize
    room = size <= KEEP * term.bytes
    small = numbers * term.itemsize <= CACHE // 8
    kernels, out = term.kernels(grouping), []
    ghost = any(not kernel.keeps for kernel in kernels)
    for kernel in kernels:
        if kernel.heavy and not _forced:
            continue
        if kernel.keeps and (_forced or room):
            out.append(kernel)
        if kernel.keeps and (
            _forced or not (room or ghost) or (kernel.name in ("unfold", "pixels") and small)
        ):
            out.append(by_parts(kernel.name, term, numbers, grouping))
        if not kernel.keeps:
            out.append(kernel)
    return out


def by_parts(name: str, term: Term, numbers: int, grouping: Grouping) -> Kernel:
    """Return a kernel that takes gradients of some units at a time, and keeps their lengths alone."""

    def run() -> Tensor:
        size = CACHE // max(1, numbers * term.itemsize)
        return torch.cat([square_norms(rows) for rows in run_by(size, name, term, grouping)])

    return Kernel(f"{name}, not kept", False, run)


def run_by(size: int, name: str, term: Term, grouping: Grouping) -> Iterator[Tensor]:
    """Yield what a kernel gives for at most so many units at a time."""
    for images, part in grouping.chunks(max(1, size)):
        few = term.select(images)
        yield next(kernel for kernel in few.kernels(part) if kernel.name == name).run()


def choose(term: Term, numbers: int, grouping: Grouping) -> Kernel:
    """Return the kernel for a term whose parameter has so many numbers."""
    found = candidates(term, numbers, grouping)
    for name in _forced:
        for kernel in found:
            if kernel.name == name:
                return kernel
    if len(found) == 1:
        return found[0]
    rows = grouping.units.bit_length()
    spread = grouping.block or -(-grouping.images // max(1, grouping.units)).bit_length()
    key = (*term.key(), rows, spread, str(term.dtype), str(term.device), torch.get_num_threads())
    if key not in _chosen:
        _chosen[key] = fastest(term, found, numbers, grouping)
    return next((kernel for kernel in found if kernel.name == _chosen[key]), found[0])


def fastest(term: Term, found: Sequence[Kernel], numbers: int, grouping: Grouping) -> str:
    """Return the name of the kernel that takes the least time, with the sum that follows.

    Each runs once to warm up, on some of the images where they are many; those that are then far behind are
    left out, and the others take turns.
    """
    names = [kernel.name for kernel in found]
    share = -(-term.bytes // SAMPLE)
    if share > 1 and grouping.units > 1:
        images, grouping = grouping.chunks(max(1, grouping.units // share))[0]
        term = term.select(images)
        found = [kernel for kernel in candidates(term, numbers, grouping) if kernel.name in names]
    weights = torch.ones(grouping.units, dtype=term.dtype, device=term.device)

    def run(kernel: Kernel) -> float:
        start = now(term.device)
        rows = kernel.run()
        if kernel.keeps:
            square_norms(rows)
            Kept(rows).total(weights)
        else:
            term.total(grouping.spread(weights))
        del rows
        return now(term.device) - start

    first = [run(kernel) for kernel in found]
    near = [kernel for kernel, took in zip(found, first, strict=True) if took <= FAR * min(first)]
    times = {kernel.name: run(kernel) for kernel in near}
    for _ in range(2):
        for kernel in near:
            times[kernel.name] = min(times[kernel.name], run(kernel))
    return min(times, key=times.__getitem__)


def now(device: torch.device) -> float:
    """Return a time in seconds, after all work handed to the device.

    On a processor it is this thread's own, so that other programs do not decide.
    """
    if device.type == "cpu":
        return time.thread_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


def choices() -> dict[tuple[object, ...], str]:
    """Return what was chosen so far in this process, for benchmarks and curiosity."""
    return dict(_chosen)
