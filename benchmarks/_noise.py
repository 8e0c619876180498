"""Nanoseconds per value of discrete noise: ours through a permit, NumPy's floats, OpenDP's samplers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from sfumato.core.gate import Gate, Plan
from sfumato.mechanisms.discrete import Noise

#: One scale with a table of its own and one without, of each law.
SCALES = {
    "laplace": (Fraction(10), Fraction(10**6)),
    "gaussian": (Fraction(50**2), Fraction(10**12)),
}


def noise_figures(count: int = 1_000_000, rounds: int = 5, *, opendp: bool = True) -> dict[str, float]:
    """Return `noise_ns_per_value` (the slower of two laws with a table of their own) and what stands beside.

    CPU time, each in turn, medians; tables are made beforehand, as they are kept between releases.
    """
    plan = Plan(action="query", mechanism="benchmark", guarantee="heuristic", statement="figures only")
    permit = Gate().open(plan)
    own, peer = Noise(permit, source="own"), Noise(permit, source="opendp")
    values = np.arange(count, dtype=np.int64)
    few, rng = values[: max(1, count // 200)], np.random.default_rng()
    runs: dict[str, tuple[Callable[[], object], int]] = {
        "numpy_laplace_ns": (lambda: values + rng.laplace(0, 10, count), count),
        "numpy_gaussian_ns": (lambda: values + rng.normal(0, 50, count), count),
    }
    for law, (narrow, wide) in SCALES.items():
        for name, scale in (("", narrow), ("_wide", wide)):
            runs[f"own_{law}{name}_ns"] = (lambda law=law, s=scale: getattr(own, law)(values, s)), count
        if opendp:
            runs[f"opendp_{law}_ns"] = (lambda law=law, s=narrow: getattr(peer, law)(few, s)), len(few)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(rounds + 1):
        for name, (run, size) in runs.items():
            start = time.process_time_ns()
            run()
            if round_number:  # the first makes tables and loads libraries
                times[name].append((time.process_time_ns() - start) / size)
    figures = {name: statistics.median(taken) for name, taken in times.items()}
    return {"noise_ns_per_value": max(figures["own_laplace_ns"], figures["own_gaussian_ns"]), **figures}


if __name__ == "__main__":
    for figure, nanoseconds in noise_figures().items():
        print(f"{figure}: {nanoseconds:.0f}")
