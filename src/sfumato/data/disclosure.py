"""k-anonymity, l-diversity and t-closeness: how alike people are in what is left of them.

These are tests of one attack each, with known quasi-identifiers. They say nothing about attackers who know
other columns, and nothing about several releases together; they are printed as `tested`, never as a promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

LIMITS = (
    "Tested against an attacker who knows exactly the quasi-identifiers named here, and only this version."
)


@dataclass(frozen=True, slots=True)
class Disclosure:
    """Results of the checks.

    Args:
        quasi_identifiers: the columns an attacker is taken to know.
        k: people in the smallest group alike in them; 0 for an empty table.
        groups: how many groups there are; alone: how many hold one person.
        l: sensitive column -> fewest different values in a group.
        t: sensitive column -> largest distance of a group's values from everybody's, 0..1.
    """

    quasi_identifiers: tuple[str, ...]
    k: int
    groups: int
    alone: int
    l: dict[str, int] = field(default_factory=dict)  # noqa: E741  its name in the literature
    t: dict[str, float] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "guarantee": "tested",
            "quasi_identifiers": list(self.quasi_identifiers),
            "k": self.k,
            "groups": self.groups,
            "groups_of_one": self.alone,
            "l": dict(self.l),
            "t": dict(self.t),
            "limits": LIMITS,
        }


def disclosure(table: pa.Table, quasi: Sequence[str], sensitive: Sequence[str], unit: str) -> Disclosure:
    """Check a table.

    >>> table = pa.table({"who": ["a", "b", "c"], "age": ["30-39", "30-39", "40-49"]})
    >>> disclosure(table, ["age"], [], "who").k
    1

    Guarantee (tested):
        k counts people (values of the unit), not rows: ten rows of one person are a group of one. A missing
        value is a value of its own. l counts different values. t is the earth mover's distance: for numbers
        with their order (steps between neighbouring values count alike), for others half the sum of
        differences.

    Args:
        table: rows, with all the columns named here.
        quasi: the columns that an attacker is taken to know; at least one.
        sensitive: the columns an attacker wants to learn.
        unit: the column that says whom a row is about.

    Source: Samarati & Sweeney 1998; Machanavajjhala et al. 2007; Li, Li & Venkatasubramanian 2007.
    """
    groups, people = codes([table[name] for name in quasi]), codes([table[unit]])
    if not len(groups):
        return Disclosure(tuple(quasi), 0, 0, 0)
    sizes = np.bincount(_pairs(groups, people)[0][:, 0])
    l_values, t_values = {}, {}
    for name in sensitive:
        values, ordered = _sensitive(table[name])
        both, counts = _pairs(groups, values)
        l_values[name] = int(np.bincount(both[:, 0]).min())
        t_values[name] = round(float(_distances(both, counts, ordered).max(initial=0.0)), 9)
    return Disclosure(tuple(quasi), int(sizes.min()), len(sizes), int((sizes == 1).sum()), l_values, t_values)


def codes(columns: Sequence[pa.ChunkedArray]) -> NDArray[np.int64]:
    """Return for each row the number of its combination of values, counted from 0 without gaps."""
    result: NDArray[np.int64] | None = None
    for column in columns:
        encoded = pc.dictionary_encode(column, null_encoding="encode").combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = (
                pa.chunked_array([], encoded.type).combine_chunks() if not len(encoded) else encoded.chunk(0)
            )
        own = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        if result is None:
            result = own
        else:
            width = int(own.max(initial=0)) + 1
            result = np.unique(result * width + own, return_inverse=True)[1].astype(np.int64)
    if result is None:
        return np.zeros(0, np.int64)
    return np.unique(result, return_inverse=True)[1].astype(np.int64).reshape(-1)


def _pairs(
    groups: NDArray[np.int64], values: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each different (group, value) once, sorted, and how many rows have it."""
    width = int(values.max(initial=0)) + 1
    both, counts = np.unique(groups * width + values, return_counts=True)
    return np.stack([both // width, both % width], axis=1), counts.astype(np.int64)


def _sensitive(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], bool]:
    """Return each row's value as a number from 0, in the order of the values where they have one."""
    kind = column.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not numeric or column.null_count:
        return codes([column]), False
    return np.unique(column.to_numpy(), return_inverse=True)[1].astype(np.int64).reshape(-1), True


def _distances(both: NDArray[np.int64], counts: NDArray[np.int64], ordered: bool) -> NDArray[np.float64]:
    """Return each group's distance from everybody.

    Args:
        both: (n, 2) group and value, sorted, each pair once.
        counts: (n,) rows of that pair.
    """
    group, value = both[:, 0], both[:, 1]
    share = counts / np.bincount(group, weights=counts)[group]
    overall = np.bincount(value, weights=counts) / counts.sum()
    if not ordered:
        inside = np.bincount(group, weights=np.abs(share - overall[value]))
        outside = 1.0 - np.bincount(group, weights=overall[value])
        return np.asarray((inside + np.maximum(outside, 0.0)) / 2)
    count = len(overall)
    if count == 1:
        return np.zeros(int(group.max()) + 1)
    # Between two neighbouring values of a group its cumulated share is constant, and everybody's only grows:
    # their difference changes sign once over such a stretch, and prefix sums give the sum of both parts.
    cumulated = np.cumsum(overall)
    sums = np.concatenate([[0.0], np.cumsum(cumulated)])
    first = np.concatenate([[True], group[1:] != group[:-1]])
    last = np.concatenate([first[1:], [True]])
    running = np.cumsum(share)
    before = np.maximum.accumulate(np.where(first, running - share, -np.inf))
    level = running - before
    end = np.where(last, count, np.concatenate([value[1:], [count]]))
    total = np.bincount(group, weights=_stretch(cumulated, sums, level, value, end))
    heads = np.flatnonzero(first)
    ahead = _stretch(cumulated, sums, np.zeros(len(heads)), np.zeros(len(heads), np.int64), value[heads])
    return np.asarray((total + ahead) / (count - 1))


def _stretch(
    cumulated: NDArray[np.float64],
    sums: NDArray[np.float64],
    level: NDArray[np.float64],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the sum over start <= i < end of |level - cumulated[i]|."""
    turn = np.clip(np.searchsorted(cumulated, level), start, end)
    below = level * (turn - start) - (sums[turn] - sums[start])
    above = (sums[end] - sums[turn]) - level * (end - turn)
    return np.asarray(below + above)
