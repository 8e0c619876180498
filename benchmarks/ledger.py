"""What a charge costs: deciding it with 10,000 earlier events, and making it durable.

The floor of a durable charge is the disk: an fsync of a small file, timed in the same rounds. A charge
commits once through SQLite's rollback journal (about four fsyncs) and appends to the anchor (one more).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from _bench import alternate, arguments, medians, report
from sfumato.core.anchor import FileAnchor
from sfumato.core.event import Gaussian
from sfumato.core.ledger import Ledger
from sfumato.core.verify import verify

EARLIER = 10_000


def book(path: Path | str, anchor: Path | None) -> Ledger:
    ledger = Ledger(path, FileAnchor(anchor) if anchor else None, create=True)
    ledger.open_population("people", epsilon=1000, delta="1e-6", unit="person")
    ledger.open_share("people", "all", kind="filter", epsilon=1000, delta="1e-6")
    return ledger


def charge(ledger: Ledger, noise: int = 100) -> None:
    ledger.reserve({"mechanism": "benchmark"}, Gaussian(noise), population="people", share="all")


def main() -> None:
    options = arguments(__doc__ or "")
    rounds = 30 if options.quick else 200
    memory = book(":memory:", None)
    empty: list[float] = []
    for index in range(EARLIER):
        start = time.perf_counter()
        charge(memory, 100 + index % 40)
        if index >= 100:
            empty.append(time.perf_counter() - start)
    decide = []
    for index in range(rounds):
        start = time.perf_counter()
        charge(memory, 100 + index % 40)
        decide.append(time.perf_counter() - start)
    start = time.perf_counter()
    rows = verify(memory).rows
    verify_seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        disk = book(Path(folder) / "l.db", Path(folder) / "heads")
        handle = os.open(Path(folder) / "floor", os.O_WRONLY | os.O_CREAT)

        def bare() -> None:
            os.write(handle, b"x" * 256)
            os.fsync(handle)

        middle = medians(alternate({"fsync": bare, "charge": lambda: charge(disk)}, rounds))
        os.close(handle)
    report(
        {
            "admission_ms_with_10000_earlier": 1000 * statistics.median(decide),
            "admission_last_over_first_1000": statistics.median(empty[-1000:])
            / statistics.median(empty[:1000]),
            "durable_charge_over_fsync": middle["charge"] / middle["fsync"],
            "verify_us_per_row": 1e6 * verify_seconds / rows,
        },
        [f"{name}: {1000 * value:.2f} ms" for name, value in middle.items()],
        options.json,
    )


if __name__ == "__main__":
    main()
