"""A small city for questions: a project in a folder, with a table of who passed which junction."""

from __future__ import annotations

from pathlib import Path

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
table = "flow.parquet"
unit = "vehicle"
population = "drivers"
purposes = ["traffic-planning"]
max_groups = 4
max_rows = 2

[datasets.flow.columns.junction]
values = ["Bridge", "Harbour", "Market", "Station"]

[datasets.flow.columns.hour]
range = [0, 23]

[datasets.flow.columns.speed]
bounds = [0, 130]
"""
JUNCTIONS = ("Bridge", "Harbour", "Market", "Station")
#: How many vehicles pass each junction: each of them once, and no other junction.
PASSED = (100, 200, 300, 400)


def crossing(folder: Path, budget: str = "epsilon = 100\ndelta = 1e-6", more: str = "") -> Project:
    """Make the project; vehicle i passes one junction, once, at hour i mod 24 with speed 40 + i mod 10."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    Project.init(folder, name="city").close()
    (folder / "sfumato.toml").write_text(POLICY.format(budget=budget) + more)
    junctions = [name for name, count in zip(JUNCTIONS, PASSED, strict=True) for _ in range(count)]
    vehicles = range(len(junctions))
    pq.write_table(
        pa.table(
            {
                "vehicle": list(vehicles),
                "junction": junctions,
                "hour": [one % 24 for one in vehicles],
                "speed": [40.0 + one % 10 for one in vehicles],
                "district": [f"d{one % 3}" for one in vehicles],
            }
        ),
        folder / "flow.parquet",
    )
    return Project(folder)
