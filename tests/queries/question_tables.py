"""Tables to ask questions of: roads, a hospital, labelled pictures; and what a policy says of them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from sfumato.queries.kinds import TableShape

JUNCTIONS = ("A1 north", "A1 south", "Bridge", "Harbour", "Station")
VEHICLES = ("bicycle", "bus", "car", "truck")
WARDS = ("cardiology", "geriatrics", "neurology", "surgery")
TESTS = ("CRP", "HbA1c", "LDL")
LABELS = ("bicycle", "car", "dog", "face", "plate")
TOOLS = ("box", "polygon")

UNITS = {"flow": "vehicle", "admissions": "patient", "labs": "patient", "labels": "image"}

SHAPES = {
    "flow": TableShape(
        "vehicle",
        {
            "vehicle": "integer",
            "junction": "text",
            "kind": "text",
            "hour": "integer",
            "speed": "number",
            "passed": "timestamp",
            "toll": "boolean",
        },
        {"hour": (Fraction(0), Fraction(23)), "speed": (Fraction(0), Fraction(130))},
    ),
    "admissions": TableShape(
        "patient",
        {
            "patient": "text",
            "ward": "text",
            "age": "integer",
            "nights": "integer",
            "admitted": "date",
            "urgent": "boolean",
        },
        {"age": (Fraction(0), Fraction(110)), "nights": (Fraction(0), Fraction(60))},
    ),
    "labs": TableShape(
        "patient",
        {"patient": "text", "test": "text", "value": "number", "taken": "timestamp"},
        {"value": (Fraction(0), Fraction(300))},
    ),
    "labels": TableShape(
        "image",
        {
            "image": "integer",
            "annotator": "text",
            "label": "text",
            "tool": "text",
            "area": "number",
            "score": "number",
            "drawn": "timestamp",
            "checked": "boolean",
        },
        {"area": (Fraction(0), Fraction(1)), "score": (Fraction(0), Fraction(1))},
    ),
}

#: What a policy says about the tables.
POLICY = """
[datasets.flow]
population = "drivers"
unit = "vehicle"
keep = ["junction", "kind", "hour", "speed", "passed", "toll"]
table = "flow.parquet"
max_groups = 5
max_rows = 1
[datasets.flow.columns.junction]
values = ["A1 north", "A1 south", "Bridge", "Harbour", "Station"]
[datasets.flow.columns.kind]
values = ["bicycle", "bus", "car", "truck"]
[datasets.flow.columns.hour]
range = [0, 23]
[datasets.flow.columns.speed]
kind = "number"
bounds = [0, 130]
step = 0.5
[datasets.flow.columns.passed]
bounds = [2026-01-01, 2026-03-31]

[datasets.admissions]
population = "patients"
unit = "patient"
keep = ["ward", "age", "nights", "admitted", "urgent"]
table = "admissions.parquet"
max_groups = 3
max_rows = 2
[datasets.admissions.columns.ward]
values = ["cardiology", "geriatrics", "neurology", "surgery"]
[datasets.admissions.columns.age]
range = [0, 110]
[datasets.admissions.columns.nights]
range = [0, 60]
[datasets.admissions.columns.admitted]
bounds = [2025-06-01, 2026-05-31]

[datasets.labs]
population = "patients"
unit = "patient"
keep = ["test", "value", "taken"]
table = "labs.parquet"
max_groups = 3
max_rows = 4
[datasets.labs.columns.test]
values = ["CRP", "HbA1c", "LDL"]
[datasets.labs.columns.value]
bounds = [0, 300]
step = 0.1
[datasets.labs.columns.taken]
bounds = [2025-06-01, 2026-05-31]

[datasets.labels]
population = "pictures"
unit = "image"
keep = ["annotator", "label", "tool", "area", "score", "drawn", "checked"]
table = "labels.parquet"
max_groups = 4
max_rows = 3
[datasets.labels.columns.label]
values = ["bicycle", "car", "dog", "face", "plate"]
[datasets.labels.columns.tool]
values = ["box", "polygon"]
[datasets.labels.columns.annotator]
values = ["ann1", "ann2", "ann3"]
[datasets.labels.columns.area]
bounds = [0, 1]
step = 0.001
[datasets.labels.columns.score]
bounds = [0, 1]
step = 0.01
[datasets.labels.columns.drawn]
bounds = [2026-03-01, 2026-04-29]
"""


def tables(people: int = 200, seed: int = 1) -> dict[str, pa.Table]:
    """Return tables of so many people each, within what `POLICY` declares, with some values missing."""
    chance = np.random.default_rng(seed)
    owners = chance.integers(0, people, 6 * people)
    hours = chance.integers(0, 24, len(owners))
    flow = {
        "vehicle": owners,
        "junction": chance.choice(JUNCTIONS, len(owners)),
        "kind": np.array(VEHICLES)[owners % len(VEHICLES)],
        "hour": hours,
        "speed": _some(chance, np.round(chance.uniform(0, 130, len(owners)) * 2) / 2),
        "passed": _moments(chance, "2026-01-01", 90, len(owners), hours),
        "toll": chance.random(len(owners)) < 0.3,
    }
    stays = chance.integers(0, people, 2 * people)
    admissions = {
        "patient": np.array([f"p{each}" for each in stays]),
        "ward": chance.choice(WARDS, len(stays)),
        "age": 20 + stays % 75,
        "nights": _some(chance, chance.integers(0, 30, len(stays))),
        "admitted": _moments(chance, "2025-06-01", 365, len(stays)).astype("datetime64[D]"),
        "urgent": chance.random(len(stays)) < 0.4,
    }
    tested = chance.integers(0, people, 3 * people)
    labs = {
        "patient": np.array([f"p{each}" for each in tested]),
        "test": chance.choice(TESTS, len(tested)),
        "value": _some(chance, np.round(chance.uniform(0, 300, len(tested)), 1)),
        "taken": _moments(chance, "2025-06-01", 365, len(tested)),
    }
    drawn = chance.integers(0, people, 4 * people)
    labels = {
        "image": drawn,
        "annotator": chance.choice(["ann1", "ann2", "ann3"], len(drawn)),
        "label": chance.choice(LABELS, len(drawn)),
        "tool": chance.choice(TOOLS, len(drawn)),
        "area": np.round(chance.uniform(0, 1, len(drawn)), 3),
        "score": _some(chance, np.round(chance.uniform(0, 1, len(drawn)), 2)),
        "drawn": _moments(chance, "2026-03-01", 60, len(drawn)),
        "checked": chance.random(len(drawn)) < 0.5,
    }
    made = {"flow": flow, "admissions": admissions, "labs": labs, "labels": labels}
    return {name: pa.table(columns) for name, columns in made.items()}


def _some(chance: np.random.Generator, values: Any) -> pa.Array:
    """Leave some values out."""
    return pa.array(values, mask=chance.random(len(values)) < 0.05)


def _moments(chance: np.random.Generator, first: str, days: int, count: int, hours: Any = None) -> Any:
    seconds = chance.integers(0, 3600, count)
    hours = chance.integers(0, 24, count) if hours is None else hours
    start = np.datetime64(first, "s") + chance.integers(0, days, count).astype("timedelta64[D]")
    return (start + (hours * 3600 + seconds).astype("timedelta64[s]")).astype("datetime64[us]")
