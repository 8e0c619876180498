"""A city's project: who passed which junction, in a Parquet file, with a policy that lets it be asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.project import Project

POLICY = """
[project]
name = "city"

[purposes.traffic-planning]
lawful_basis = "public task"
actions = ["query"]

[populations.drivers]
unit = "vehicle"
{budget}

[datasets.flow]
population = "drivers"
unit = "vehicle"
purposes = ["traffic-planning"]
keep = ["junction", "hour", "speed", "at", "truck"]
table = "flow.parquet"
max_groups = 3
max_rows = 2

[datasets.flow.columns.junction]
values = ["A", "B", "C"]

[datasets.flow.columns.hour]
range = [0, 23]

[datasets.flow.columns.speed]
bounds = [0, 130]

[datasets.flow.columns.at]
bounds = [2026-11-01, 2026-11-07]
"""


@pytest.fixture
def city(tmp_path: Path) -> Callable[..., Project]:
    """Return a maker of projects with a table of 2,000 passages of 400 vehicles."""
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    pytest.importorskip("ibis", reason="needs ibis: pip install 'sfumato[queries]'")

    def make(budget: str = "epsilon = 5\ndelta = 1e-6", **more: Any) -> Project:
        root = tmp_path / "city"
        project = Project.init(root, name="city")
        (root / "sfumato.toml").write_text(POLICY.format(budget=budget) + more.get("policy", ""))
        write_flow(root / "flow.parquet", seed=more.get("seed", 1))
        project.close()
        return Project(root)

    return make


def write_flow(path: Path, *, seed: int = 1, rows: int = 2000) -> None:
    """Write the table."""
    from datetime import datetime, timedelta

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(seed)
    minutes = random.integers(0, 7 * 1440, rows)
    table = pa.table(
        {
            "vehicle": random.integers(0, 400, rows),
            "junction": np.array(["A", "B", "C", "D"])[random.integers(0, 4, rows)],
            "hour": random.integers(0, 24, rows),
            "speed": random.normal(60, 20, rows),
            "at": [datetime(2026, 11, 1) + timedelta(minutes=int(one)) for one in minutes],
            "truck": random.integers(0, 2, rows).astype(bool),
        }
    )
    pq.write_table(table, path)
