"""What a charge costs: deciding it with 10,000 earlier events, making it durable, and within a training run.

The floor of a durable charge is the disk: an fsync of a small file, timed in the same rounds and the same
folder. SQLite commits through its rollback journal (about four fsyncs), PostgreSQL through its log (one, and
five round trips to a server); the anchor takes one more. The floor of a training run is the run without it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

from _bench import alternate, arguments, medians, report
from sfumato.core.anchor import FileAnchor
from sfumato.core.book import SCHEMES
from sfumato.core.event import Event, Gaussian, PoissonSampled, Repeated
from sfumato.core.gate import Gate, Plan
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy
from sfumato.core.verify import verify

EARLIER = 10_000
#: A small training run: examples, features, hidden units, chance of each example to be in a step.
EXAMPLES, FEATURES, HIDDEN, RATE = 20_000, 128, 128, 0.0128


def book(path: Path | str, anchor: Path | None, kind: str = "filter") -> Ledger:
    ledger = Ledger(path, FileAnchor(anchor) if anchor else None, create=True)
    ledger.open_population("people", epsilon=1000, delta="1e-6", unit="person")
    ledger.open_share("people", "all", kind=kind, epsilon=1000, delta="1e-6")  # type: ignore[arg-type]
    return ledger


def charge(ledger: Ledger, noise: int = 100) -> None:
    ledger.reserve({"mechanism": "benchmark"}, Gaussian(noise), population="people", share="all")


def deciding(rounds: int) -> dict[str, float]:
    """A book in memory: no disk, only the decision."""
    memory, times = book(":memory:", None), []
    for index in range(EARLIER + rounds):
        start = time.perf_counter()
        charge(memory, 100 + index % 40)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    rows = verify(memory).rows
    verify_seconds = time.perf_counter() - start
    early, late = times[100:1100], times[EARLIER - 1000 : EARLIER]
    return {
        "admission_ms_with_10000_earlier": 1000 * statistics.median(times[EARLIER:]),
        "admission_last_over_first_1000": statistics.median(late) / statistics.median(early),
        "verify_us_per_row": 1e6 * verify_seconds / rows,
    }


def of_blocks(folder: Path, rounds: int) -> dict[str, float]:
    """Medians of a durable charge to one block, and to all sixteen at once."""
    ledger = Ledger(folder / "blocks.db", FileAnchor(folder / "heads-blocks"), create=True)
    ledger.open_population("people", epsilon=1000, delta="1e-6", unit="person", blocks="hash 16")
    ledger.open_share("people", "all", kind="filter", epsilon=1000, delta="1e-6")

    def pay(*blocks: str) -> None:
        ledger.reserve({}, Gaussian(100), population="people", share="all", blocks=blocks)

    pay()  # opens the accounts
    middle = medians(alternate({"one": lambda: pay("h000"), "sixteen": pay}, rounds))
    ledger.close()
    return middle


def durable(folder: Path, where: str, rounds: int) -> dict[str, float]:
    """Medians of a bare fsync and of a charge, in one folder."""
    disk = book(where, folder / f"heads-{where.startswith(SCHEMES)}")
    handle = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT)

    def bare() -> None:
        os.write(handle, b"x" * 256)
        os.fsync(handle)

    bare()
    charge(disk)
    middle = medians(alternate({"fsync": bare, "charge": lambda: charge(disk)}, rounds))
    os.close(handle)
    disk.close()
    return middle


def server_of_the_tests() -> ModuleType | str:
    """Return what the tests start their PostgreSQL server with, or why there is none."""
    path = Path(__file__).resolve().parents[1] / "tests" / "core" / "conftest.py"
    if importlib.util.find_spec("psycopg") is None:
        return "needs psycopg: pip install 'sfumato[postgres]'"
    spec = importlib.util.spec_from_file_location("server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module if module.PROGRAMS else "needs a PostgreSQL server: apt-get install postgresql"


def durable_in_postgres(folder: Path, rounds: int) -> dict[str, float] | str:
    """The same with a server of our own, its data in the same folder; or why not."""
    module = server_of_the_tests()
    if isinstance(module, str):
        return module
    place = folder / "server"
    place.mkdir()
    folder.chmod(0o755)  # where the server runs as another user
    server = module.Server(place)
    try:
        server.create()
        server.start()
        return durable(folder, server.url(), rounds)
    except (AssertionError, OSError) as error:
        return f"the server does not run below {folder.parent}: {str(error)[-200:]}"
    finally:
        server.stop()
        shutil.rmtree(place, ignore_errors=True)


def training(folder: Path, steps: int, kind: str) -> dict[str, float]:
    """Train a small network with DP-SGD in NumPy behind a gate; return the seconds of run, charge and end."""
    gate = Gate(Policy.parse('[project]\nname = "bench"'), book(folder / f"{kind}.db", folder / kind, kind))
    event: Event = Repeated(PoissonSampled(str(RATE), Gaussian("1.1")), steps)
    plan = Plan(
        action="train",
        mechanism="DP-SGD",
        guarantee="proven",
        statement="a benchmark",
        event=event,
        population="people",
        share="all",
        delta="1e-7" if kind == "sum" else 0,
    )
    began = time.perf_counter()
    permit = gate.open(plan)
    charged = time.perf_counter()
    with permit:
        train(steps, int.from_bytes(permit.entropy.bytes(8), "big"))
        trained = time.perf_counter()
        permit.settle()
    ended = time.perf_counter()
    return {"run": ended - began, "charge": charged - began, "end": ended - trained}


def train(steps: int, seed: int) -> None:
    random = np.random.default_rng(seed)  # not private noise: only the time counts here
    inputs = random.standard_normal((EXAMPLES, FEATURES))
    labels = np.sign(inputs @ random.standard_normal(FEATURES))
    first = random.standard_normal((FEATURES, HIDDEN)) / np.sqrt(FEATURES)
    last = random.standard_normal(HIDDEN) / np.sqrt(HIDDEN)
    for _ in range(steps):
        chosen = random.random(EXAMPLES) < RATE
        x, y = inputs[chosen], labels[chosen]
        hidden = np.tanh(x @ first)
        slope = -y / (1 + np.exp(y * (hidden @ last)))
        of_last = slope[:, None] * hidden
        of_hidden = slope[:, None] * last * (1 - hidden**2)
        # An example's gradient of the first layer is an outer product: its norm is a product of norms.
        squares = (of_last**2).sum(1) + (of_hidden**2).sum(1) * (x**2).sum(1)
        scale = 1 / np.maximum(1, np.sqrt(squares))
        noise = 1.1 / (RATE * EXAMPLES)
        step = 1 / (RATE * EXAMPLES)
        first -= step * (x * scale[:, None]).T @ of_hidden + noise * random.standard_normal(first.shape)
        last -= step * (of_last * scale[:, None]).sum(0) + noise * random.standard_normal(HIDDEN)


def accountant() -> float:
    """Load dp-accounting, which the first price in a process waits for; return the seconds."""
    start = time.perf_counter()
    first: Callable[[], object] = lambda: charge(book(":memory:", None))  # noqa: E731
    first()
    return time.perf_counter() - start


def main() -> None:
    options = arguments(__doc__ or "")
    rounds, steps = (30, 2000) if options.quick else (200, 6000)
    loading = accountant()
    result, lines = deciding(rounds), []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        for backend, middle in (
            ("sqlite", durable(folder, str(folder / "l.db"), rounds)),
            ("postgres", durable_in_postgres(folder, rounds)),
        ):
            if isinstance(middle, str):
                lines.append(f"{backend}: skipped: {middle}")
                continue
            result[f"{backend}_charge_over_fsync"] = middle["charge"] / middle["fsync"]
            lines += [f"{backend}, {what}: {1000 * value:.2f} ms" for what, value in middle.items()]
        groups = of_blocks(folder, rounds)
        result["charge_of_16_blocks_over_1"] = groups["sixteen"] / groups["one"]
        lines += [f"16 blocks against 1: {1000 * groups['sixteen']:.2f} ms, {1000 * groups['one']:.2f} ms"]
        for kind in ("filter", "sum"):
            took = training(folder, steps, kind)
            result[f"training_{kind}_charges_over_run"] = (took["charge"] + took["end"]) / took["run"]
            lines.append(
                f"training run, {steps} steps, share of kind {kind}: {took['run']:.1f} s, of which charge "
                f"{1000 * took['charge']:.1f} ms and end {1000 * took['end']:.1f} ms"
            )
        lines.append(f"loading dp-accounting, once a process: {loading:.1f} s")
    report(result, lines, options.json)


if __name__ == "__main__":
    main()
