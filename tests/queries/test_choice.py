"""Which cells of a unit count: exactly k, all equally likely, each unit by itself, every salt anew."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sfumato.core.errors import InvalidRequest
from sfumato.queries.engines._hash import PRIME, keys_of, of_cell, of_unit

UNITS = 60_000
SALT = bytes(range(16))
#: Cells of one unit: arithmetic progressions as hours of one junction are, and some of no order.
CELLS = {
    "neighbours": np.arange(10),
    "hours of a junction": 7 + 50 * np.arange(12),
    "powers of two": 1 << np.arange(10),
    "scattered": np.array([3, 1199, 17, 404, 8, 911, 640, 2, 77]),
}


def inclusion(
    units: NDArray[np.int64], cells: NDArray[np.int64], groups: int, salt: bytes = SALT
) -> NDArray[np.bool_]:
    """Return (units, cells): whether a cell counts, by the hash that the engines compute."""
    keys = keys_of(salt)
    hashes = of_cell(of_unit(units[:, None], keys), cells[None, :], keys.cell)
    order = np.argsort(hashes * (1 << 11) + cells, axis=1)
    kept = np.zeros(hashes.shape, dtype=bool)
    np.put_along_axis(kept, order[:, :groups], True, axis=1)
    return kept


def uniform(kept: NDArray[np.bool_], groups: int) -> float:
    """Return the p-value of every cell being kept equally often."""
    units, cells = kept.shape
    share = groups / cells
    # Of k out of n, covariance makes this sum chi-square with n - 1 degrees.
    deviations = (kept.sum(0) - units * share) ** 2 / (units * share * (1 - share)) * (cells - 1) / cells
    return float(stats.chi2.sf(deviations.sum(), cells - 1))


def independent(kept: NDArray[np.bool_], groups: int) -> float:
    """Return the p-value of neighbouring units agreeing as often as chance has it."""
    units, cells = kept.shape
    both = (kept[:-1:2] & kept[1::2]).sum(1)
    observed = np.bincount(both, minlength=groups + 1)
    expected = stats.hypergeom(cells, groups, groups).pmf(np.arange(groups + 1)) * (units // 2)
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    there = expected > 0
    return float(stats.chisquare(observed[there], expected[there]).pvalue)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("first", [0, -5, 1 << 40])
def test_every_cell_of_a_unit_is_equally_likely(name, first):
    kept = inclusion(first + np.arange(UNITS), CELLS[name], 4)
    assert (kept.sum(1) == 4).all()
    assert uniform(kept, 4) > 1e-5
    assert independent(kept, 4) > 1e-5


def test_units_that_follow_one_another_in_any_step_choose_by_themselves():
    for step in (2, 24, 1 << 31, PRIME, 1 << 33):
        kept = inclusion(step * np.arange(UNITS), CELLS["neighbours"], 5)
        assert uniform(kept, 5) > 1e-5
        assert independent(kept, 5) > 1e-5


def test_another_salt_chooses_anew():
    units, cells = np.arange(UNITS), CELLS["hours of a junction"]
    mixed = np.empty((2 * UNITS, len(cells)), dtype=bool)
    mixed[::2] = inclusion(units, cells, 4)
    mixed[1::2] = inclusion(units, cells, 4, bytes(16))
    assert independent(mixed, 4) > 1e-5
    mixed[1::2] = mixed[::2]  # the same salt twice
    assert independent(mixed, 4) < 1e-9


def test_a_hash_of_the_cell_alone_would_be_seen():
    cells = CELLS["neighbours"]
    kept = np.tile(inclusion(np.zeros(1, dtype=np.int64), cells, 4), (UNITS, 1))
    assert uniform(kept, 4) < 1e-9
    assert independent(kept, 4) < 1e-9


def test_one_round_would_be_seen():
    """The linear hash alone favours some of an arithmetic progression."""
    keys = keys_of(SALT)
    cells = CELLS["hours of a junction"]
    hashes = (of_unit(np.arange(UNITS)[:, None], keys) * keys.cell[0] + cells * 1234567) % PRIME
    kept = np.zeros(hashes.shape, dtype=bool)
    np.put_along_axis(kept, np.argsort(hashes, axis=1)[:, :4], True, axis=1)
    assert independent(kept, 4) < 1e-5 or uniform(kept, 4) < 1e-5 or _pairs(kept, 4) < 1e-9
    assert _pairs(inclusion(np.arange(UNITS), cells, 4), 4) > 1e-5


def _pairs(kept: NDArray[np.bool_], groups: int) -> float:
    """Return the p-value of every pair of cells being kept together equally often."""
    units, cells = kept.shape
    share = groups * (groups - 1) / (cells * (cells - 1))
    together = kept.T.astype(np.int64) @ kept.astype(np.int64)
    found = together[np.triu_indices(cells, 1)]
    worst = np.abs(found - units * share).max() / np.sqrt(units * share * (1 - share))
    return float(min(1.0, 2 * len(found) * stats.norm.sf(worst)))


def test_numbers_stay_below_63_bits():
    """In Python, where nothing overflows: the largest that every step can reach."""
    largest = keys_of(SALT)
    top = tuple([1 << 30] * 7)
    assert max(*largest.unit, *largest.cell, *largest.bin) <= 1 << 30
    steps = (PRIME * top[0] + PRIME * top[0] + 3 * top[0] + top[0], (2 * PRIME) * top[0] + top[0])
    assert max(steps) < 1 << 63


def test_the_hash_is_what_it_was():
    """Another hash would choose other cells in a table that was asked before."""
    keys = keys_of(SALT)
    found = [
        of_cell(of_unit(unit, keys), cell, keys.cell) for unit, cell in ((0, 0), (-7, 3), (1 << 62, 1199))
    ]
    assert found == [1940736191, 1668642284, 699372506]


def test_a_short_salt_is_refused():
    with pytest.raises(InvalidRequest, match="16 bytes"):
        keys_of(b"short")
