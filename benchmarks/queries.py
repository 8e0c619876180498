"""Private queries beside a plain count of different people, and beside OpenDP and diffprivlib.

The table: people at junctions at hours, 24 x 50 cells, ten rows a person. The question: how many people per
cell, when each counts in exactly five of them. Its fair mark is the same engine's COUNT(DISTINCT person) by
cell, which has to find the different pairs too.

Peers need versions of other packages than we do, so they run in a virtual environment of their own: the one
whose Python SFUMATO_PEERS names, else `.peers` in this folder, which is made by pip where it is missing.
Without one they are left out, with the reason.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from _bench import alternate, arguments, medians, report
from _noise import noise_figures
from sfumato.queries.bounded import Bounded, Measure, TableRef
from sfumato.queries.engines.duckdb import build
from sfumato.queries.model import Column, Key

HOURS, JUNCTIONS, GROUPS, THREADS = 24, 50, 5, 2
ROUNDS, SECONDS = 5, 1800

#: What their versions are here; scikit-learn is what diffprivlib still works with.
PEERS = ("opendp[polars]==0.16.0", "diffprivlib==0.6.6", "scikit-learn<1.6", "pyarrow")
OPENDP = """
import sys, time, opendp.prelude as dp, polars as pl
dp.enable_features("contrib")
path, rows = sys.argv[1], int(sys.argv[2])
start = time.perf_counter()
by = ["junction", "hour"]
context = dp.Context.compositor(
    data=pl.scan_parquet(path),
    privacy_unit=dp.unit_of(contributions=1, identifier=pl.col("person")),
    privacy_loss=dp.loss_of(epsilon=1.0, delta=1e-7),
    split_evenly_over=1,
    margins=[dp.polars.Margin(by=by, max_length=rows, max_groups=1200)],
)
keys = pl.LazyFrame({"junction": list(range(50))}).join(pl.LazyFrame({"hour": list(range(24))}), how="cross")
keys = keys.with_columns(pl.col("junction").cast(pl.Int32), pl.col("hour").cast(pl.Int32))
query = context.query().truncate_per_group(1, by=by, keep="first").truncate_num_groups(5, by=by, keep="first")
query.group_by(by).agg(dp.len()).with_keys(keys).release().collect()
print(time.perf_counter() - start)
"""
DIFFPRIVLIB = """
import sys, time, numpy as np, pyarrow.parquet as pq, diffprivlib.tools as tools
start = time.perf_counter()
table = pq.read_table(sys.argv[1], columns=["hour", "junction"])
sample = np.column_stack([table["hour"].to_numpy(), table["junction"].to_numpy()])
tools.histogramdd(sample, epsilon=1.0, bins=(24, 50), range=((0, 23), (0, 49)))
print(time.perf_counter() - start)
"""


def flow(path: Path, rows: int) -> None:
    random = np.random.default_rng(1)
    columns = {
        "person": random.integers(0, rows // 10, rows),
        "hour": random.integers(0, HOURS, rows).astype(np.int32),
        "junction": random.integers(0, JUNCTIONS, rows).astype(np.int32),
    }
    pyarrow.parquet.write_table(pa.table(columns), path)


def question(path: Path) -> Bounded:
    kinds = {"person": "integer", "hour": "integer", "junction": "integer"}
    keys = tuple(
        Key(name, Column(name), tuple(range(count)))
        for name, count in (("hour", HOURS), ("junction", JUNCTIONS))
    )
    return Bounded(
        tables=(TableRef("flow", "person", str(path), kinds, {}),),
        joins=(),
        where=None,
        keys=keys,
        groups=GROUPS,
        rows=1,
        measures=(Measure("units"),),
        salt=os.urandom(16),
    )


def against_itself(path: Path, rounds: int) -> dict[str, float]:
    """Return medians of seconds: ours, and DuckDB's plain count of different people."""
    import duckdb

    engine, plain, asked = build(threads=THREADS), duckdb.connect(config={"threads": THREADS}), question(path)
    distinct = (
        f"SELECT hour, junction, COUNT(DISTINCT person) FROM read_parquet('{path}') GROUP BY hour, junction"
    )
    pairs = f"SELECT count(*) FROM (SELECT DISTINCT person, hour, junction FROM read_parquet('{path}'))"
    engine.bounded(asked)

    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: engine.bounded(asked),
        "distinct": lambda: plain.execute(distinct).fetchall(),
        "pairs": lambda: plain.execute(pairs).fetchall(),
    }
    spent: dict[str, list[float]] = {name: [] for name in runs}

    def counted(name: str) -> Callable[[], object]:
        def run() -> None:
            start = time.process_time()
            runs[name]()
            spent[name].append(time.process_time() - start)

        return run

    wall = medians(alternate({name: counted(name) for name in runs}, rounds))
    cpu = {name: statistics.median(values) for name, values in spent.items()}
    engine.close()
    return wall | {f"{name}_cpu": seconds for name, seconds in cpu.items()}


def peak(path: Path, ours: bool, answer: multiprocessing.Queue[float]) -> None:
    """Put the peak memory of one question, by a process of its own, in MB."""
    import duckdb

    if ours:
        build(threads=THREADS).bounded(question(path))
    else:
        text = f"SELECT hour, junction, COUNT(DISTINCT person) FROM read_parquet('{path}') GROUP BY ALL"
        duckdb.connect(config={"threads": THREADS}).execute(text).fetchall()
    status = Path("/proc/self/status").read_text()  # what getrusage gives, children inherit
    answer.put(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def peaks(path: Path) -> dict[str, float]:
    spawn, found = multiprocessing.get_context("spawn"), {}
    for name, ours in (("peak_memory_mb", True), ("peak_memory_mb_of_count_distinct", False)):
        answer = spawn.Queue()
        process = spawn.Process(target=peak, args=(path, ours, answer))
        process.start()
        found[name] = answer.get(timeout=SECONDS)
        process.join()
    return found


@functools.cache
def peers() -> str:
    """Return the Python of an environment with the peers, which is made once."""
    if named := os.environ.get("SFUMATO_PEERS"):
        return named
    folder = Path(__file__).parent / ".peers"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print("making an environment for the peers, once", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
        install = [str(python), "-m", "pip", "install", "-q", *PEERS]
        subprocess.run(install, check=True, capture_output=True, timeout=SECONDS)
        (folder / "ready").touch()
    return str(python)


def peer(script: str, path: Path, rows: int) -> float | str:
    """Return the seconds that a peer takes, without its start, or why it does not run."""
    try:
        python = peers()
    except (OSError, subprocess.SubprocessError) as error:
        return f"no environment with peers, and none could be made ({type(error).__name__})"
    command = [python, "-W", "ignore", "-c", script, str(path), str(rows)]
    environment = os.environ | {"POLARS_MAX_THREADS": str(THREADS)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
        return float(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return f"no answer in {SECONDS} seconds"
    except (OSError, IndexError, ValueError) as error:
        return f"does not run: {error or done.stderr[-200:]}"


def main() -> None:
    asked = arguments(__doc__.splitlines()[0])
    rows, rounds = (1_000_000, 5) if asked.quick else (10_000_000, ROUNDS)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.parquet"
        flow(path, rows)
        times = against_itself(path, rounds)
        result: dict[str, object] = {
            "rows": rows,
            "time_ratio_to_count_distinct": times["ours"] / times["distinct"],
            "cpu_ratio_to_count_distinct": times["ours_cpu"] / times["distinct_cpu"],
            "pairs_ratio_to_count_distinct": times["pairs"] / times["distinct"],
            "seconds": times["ours"],
        }
        result |= peaks(path)
        for name, script in (("opendp_polars_time_ratio", OPENDP), ("diffprivlib_time_ratio", DIFFPRIVLIB)):
            seconds = peer(script, path, rows)
            if isinstance(seconds, str):
                lines.append(f"{name} left out: {seconds}")
            else:
                result[name] = seconds / times["ours"]
    result |= noise_figures(200_000 if asked.quick else 1_000_000, rounds)
    report(result, lines, asked.json)


if __name__ == "__main__":
    main()
