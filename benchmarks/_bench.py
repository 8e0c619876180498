"""What every benchmark shares: `--quick`, `--json`, alternation, medians."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping


def arguments(about: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under a minute or two")
    parser.add_argument("--json", action="store_true", help="print one JSON object with the ratios")
    return parser.parse_args()


def alternate(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each run once per round, in turn, so that a busy machine is busy for all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}


def report(result: Mapping[str, object], lines: list[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps(dict(result)))
        return
    for line in lines:
        print(line)
    for name, value in result.items():
        print(f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}")
    sys.stdout.flush()
