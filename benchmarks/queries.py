"""Private queries beside a plain count of different people, and beside OpenDP and diffprivlib.

The table: people at junctions at hours, 24 x 50 cells, ten rows a person. The question: how many people per
cell, when each counts in exactly five of them. Its fair mark is the same engine's COUNT(DISTINCT person) by
cell, which has to find the different pairs too.

The main figures are of a table of whole numbers. "text_": junctions have names, and hours are taken from a
moment in a week. "named_": as the main ones, but people are known by text.

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
from sfumato.queries.model import Column, Key, Part

HOURS, JUNCTIONS, GROUPS, THREADS = 24, 50, 5, 2
ROUNDS, SECONDS = 5, 1800
NAMES = [f"junction {place:02d}" for place in range(JUNCTIONS)]
#: A midnight.
START = 1_759_968_000

#: What their versions are here; scikit-learn is what diffprivlib still works with.
PEERS = ("opendp[polars]==0.16.0", "diffprivlib==0.6.6", "scikit-learn<1.6", "pyarrow")
OPENDP = """
import sys, time, opendp.prelude as dp, polars as pl
dp.enable_features("contrib")
path, rows, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
start = time.perf_counter()
by, text = ["junction", "hour"], kind == "text"
# What is known of groups can be said of columns that are there; an hour is not yet.
known = {} if text else {"by": by, "max_groups": 1200}
context = dp.Context.compositor(
    data=pl.scan_parquet(path),
    privacy_unit=dp.unit_of(contributions=1, identifier=pl.col("person")),
    privacy_loss=dp.loss_of(epsilon=1.0, delta=1e-7),
    split_evenly_over=1,
    margins=[dp.polars.Margin(max_length=rows, **known)],
)
names = [f"junction {place:02d}" for place in range(50)] if text else list(range(50))
keys = pl.LazyFrame({"junction": names}).join(pl.LazyFrame({"hour": list(range(24))}), how="cross")
keys = keys.with_columns(pl.col("hour").cast(pl.Int8 if text else pl.Int32))
keys = keys if text else keys.with_columns(pl.col("junction").cast(pl.Int32))
query = context.query()
query = query.with_columns(pl.col("time").dt.hour().alias("hour")) if text else query
query = query.truncate_per_group(1, by=by, keep="first").truncate_num_groups(5, by=by, keep="first")
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


def flow(path: Path, rows: int, kind: str = "") -> None:
    random = np.random.default_rng(1)
    person, hour = random.integers(0, rows // 10, rows), random.integers(0, HOURS, rows)
    junction = random.integers(0, JUNCTIONS, rows)
    columns: dict[str, object] = {
        "person": pa.array(np.char.add("vehicle ", person.astype(str))) if kind == "named" else person,
        "hour": hour.astype(np.int32),
        "junction": junction.astype(np.int32),
    }
    if kind == "text":
        seconds = START + 86400 * random.integers(0, 7, rows) + 3600 * hour + random.integers(0, 3600, rows)
        columns = {
            "person": person,
            "time": pa.array(seconds * 1_000_000, pa.timestamp("us")),
            "junction": pa.DictionaryArray.from_arrays(junction, NAMES).cast(pa.string()),
        }
    pyarrow.parquet.write_table(pa.table(columns), path)


def question(path: Path, kind: str = "") -> Bounded:
    kinds = {"person": "text" if kind == "named" else "integer", "junction": "integer"}
    kinds |= {"time": "timestamp", "junction": "text"} if kind == "text" else {"hour": "integer"}
    hour = Part("hour", Column("time")) if kind == "text" else Column("hour")
    names = tuple(NAMES) if kind == "text" else tuple(range(JUNCTIONS))
    return Bounded(
        tables=(TableRef("flow", "person", str(path), kinds, {}),),
        joins=(),
        where=None,
        keys=(Key("hour", hour, tuple(range(HOURS))), Key("junction", Column("junction"), names)),
        groups=GROUPS,
        rows=1,
        measures=(Measure("units"),),
        salt=os.urandom(16),
    )


def distinct(path: Path, kind: str = "") -> str:
    hour = "hour(time)" if kind == "text" else "hour"
    return f"SELECT {hour}, junction, COUNT(DISTINCT person) FROM read_parquet('{path}') GROUP BY ALL"


def against_itself(path: Path, rounds: int, kind: str = "") -> dict[str, float]:
    """Return medians of seconds: ours, and DuckDB's plain count of different people."""
    import duckdb

    engine, plain = build(threads=THREADS), duckdb.connect(config={"threads": THREADS})
    asked, sql = question(path, kind), distinct(path, kind)
    pairs = f"SELECT count(*) FROM ({sql.replace('COUNT(DISTINCT person)', 'person')})"
    engine.bounded(asked)

    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: engine.bounded(asked),
        "distinct": lambda: plain.execute(sql).fetchall(),
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
        duckdb.connect(config={"threads": THREADS}).execute(distinct(path)).fetchall()
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


def peer(script: str, path: Path, rows: int, kind: str = "") -> float | str:
    """Return the seconds that a peer takes, without its start, or why it does not run."""
    try:
        python = peers()
    except (OSError, subprocess.SubprocessError) as error:
        return f"no environment with peers, and none could be made ({type(error).__name__})"
    command = [python, "-W", "ignore", "-c", script, str(path), str(rows), kind]
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
    result: dict[str, object] = {"rows": rows}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("", "text", "named"):
            path, mark = Path(folder) / f"flow{kind}.parquet", f"{kind}_" if kind else ""
            flow(path, rows, kind)
            times = against_itself(path, rounds, kind)
            result |= {
                f"{mark}time_ratio_to_count_distinct": times["ours"] / times["distinct"],
                f"{mark}cpu_ratio_to_count_distinct": times["ours_cpu"] / times["distinct_cpu"],
                f"{mark}pairs_ratio_to_count_distinct": times["pairs"] / times["distinct"],
                f"{mark}seconds": times["ours"],
            }
            scripts = {f"{mark}opendp_polars_time_ratio": OPENDP}
            if not kind:
                result |= peaks(path)
                scripts["diffprivlib_time_ratio"] = DIFFPRIVLIB
            for name, script in scripts.items():
                seconds = peer(script, path, rows, kind)
                if isinstance(seconds, str):
                    lines.append(f"{name} left out: {seconds}")
                else:
                    result[name] = seconds / times["ours"]
    result |= noise_figures(200_000 if asked.quick else 1_000_000, rounds)
    report(result, lines, asked.json)


if __name__ == "__main__":
    main()
