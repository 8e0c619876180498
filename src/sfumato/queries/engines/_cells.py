"""From an engine's rows to `Cells`: every public cell is there, in order; those that did not occur are 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sfumato.queries.bounded import Bounded, Cells, Measure
from sfumato.queries.engines._bounding import Speed, bins, measures, sums
from sfumato.queries.engines._relations import Shown
from sfumato.queries.engines._sql import Stages
from sfumato.queries.model import Binned


def gathered(
    asked: Bounded,
    tables: Sequence[Shown],
    unit: str,
    run: Callable[[Any, Stages], pa.Table],
    *,
    speed: Speed = "ranked",
) -> Cells:
    """Ask an engine for all measures, and put what it answers into place.

    Args:
        unit: how units come: see `UNIT_TYPES`.
        run: executes an Ibis expression after its steps. All calls see the same rows.
    """
    found: dict[int, NDArray[np.int64]] = {}
    keys: pa.Table | None = None
    plain = measures(asked)
    if plain:
        stages = Stages()
        answer = run(sums(asked, tables, unit, stages, speed=speed), stages)
        if asked.private:
            answer = answer.sort_by([(f"k{place}", "ascending") for place in range(len(asked.keys))])
            keys = pa.table({key.name: answer.column(f"k{place}") for place, key in enumerate(asked.keys)})
        for place, measure in enumerate(plain):
            column = _numbers(answer, f"m{place}")
            found[id(measure)] = (
                column if asked.private else _placed(asked.cells, _numbers(answer, "cell"), column)
            )
    for measure in asked.measures:
        if measure.kind == "bins":
            stages = Stages()
            answer = run(bins(asked, tables, unit, measure, stages), stages)
            found[id(measure)] = _binned(asked, measure, answer)
    return Cells(tuple(found[id(measure)] for measure in asked.measures), keys)


def arrow_schema(expression: Any) -> pa.Schema:
    """Return the Arrow schema of an Ibis expression of our types."""
    kinds = {
        "boolean": pa.bool_(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "string": pa.string(),
        "date": pa.date32(),
    }
    found = expression.schema()
    return pa.schema(
        [(name, kinds.get(str(found[name]).lstrip("!"), pa.timestamp("us"))) for name in found.names]
    )


def _binned(asked: Bounded, measure: Measure, answer: pa.Table) -> NDArray[np.int64]:
    assert isinstance(measure.of, Binned)
    count = measure.of.count
    places = _numbers(answer, "cell") * count + _numbers(answer, "bin")
    return _placed(asked.cells * count, places, _numbers(answer, "m0")).reshape(asked.cells, count)


def _numbers(answer: pa.Table, name: str) -> NDArray[np.int64]:
    column: NDArray[np.int64] = np.asarray(answer.column(name).to_numpy(), dtype=np.int64)
    return column


def _placed(size: int, places: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    every = np.zeros(size, dtype=np.int64)
    every[places] = values
    return every
