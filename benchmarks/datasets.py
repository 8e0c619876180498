"""Adding a table, beside reading it and writing it as Parquet with pyarrow alone."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from _bench import alternate, arguments, medians, report
from sfumato.core.policy import Policy
from sfumato.data.add import add
from sfumato.data.catalogue import Catalogue
from sfumato.data.door import Request
from sfumato.data.store import PlainStore

POLICY = """
[project]
name = "benchmark"
[datasets.visits]
keep = ["born", "postcode", "age", "diagnosis", "cost"]
unit = "patient"
quasi_identifiers = ["born", "postcode", "age"]
sensitive = ["diagnosis", "cost"]
[datasets.visits.generalise]
born = "year"
postcode = "prefix 2"
age = "band 10"
"""


def visits(path: Path, rows: int) -> None:
    """Write a table of visits: four a patient, and a name that must not enter."""
    rng = np.random.default_rng(7)
    patients = rng.integers(0, rows // 4, rows)
    days = np.datetime64("1930-01-01") + rng.integers(0, 30_000, rows)
    table = {
        "patient": pa.array([f"p{number:07d}" for number in patients]),
        "name": pa.array([f"Name {number}" for number in patients]),
        "born": pa.array(days).cast(pa.string()),
        "postcode": pa.array([f"{code:05d}" for code in rng.integers(0, 99_999, rows)]),
        "age": pa.array(rng.integers(0, 100, rows)),
        "diagnosis": pa.array(np.array([f"D{i}" for i in range(50)])[rng.integers(0, 50, rows)]),
        "cost": pa.array(np.round(rng.gamma(2, 100, rows), 2)),
    }
    csv.write_csv(pa.table(table), path)


def main() -> None:
    given = arguments("Adding a table, beside pyarrow alone")
    rows = 100_000 if given.quick else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        visits(folder / "visits.csv", rows)
        count = itertools.count()
        request = Request(dataset="visits", path=folder / "visits.csv")

        def plain() -> None:
            pq.write_table(csv.read_csv(folder / "visits.csv"), folder / "plain.parquet", compression="zstd")

        def ours() -> None:
            place = folder / str(next(count))
            add(Catalogue(place / "catalogue"), PlainStore(place / "objects"), Policy.parse(POLICY), request)

        seconds = medians(alternate({"pyarrow": plain, "sfumato": ours}, 2 if given.quick else 3))
    ratio = seconds["sfumato"] / seconds["pyarrow"]
    lines = [
        f"{rows} rows of 7 columns, four a patient; medians in seconds",
        f"pyarrow, read and write        {seconds['pyarrow']:.2f}",
        f"add: pseudonyms, rules, checks {seconds['sfumato']:.2f}",
        f"ratio                          {ratio:.1f}",
    ]
    report({"rows": rows, "seconds": seconds, "ratio": ratio}, lines, given.json)


if __name__ == "__main__":
    main()
