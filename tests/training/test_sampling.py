"""Sampling: each unit by its own coin, its images together, micro-batches that split nobody."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sfumato.core.entropy import SYSTEM, SeededEntropy
from sfumato.core.errors import InvalidRequest
from sfumato.training.sampling import Indices, Sample, Units, poisson


def is_poisson(sizes: list[int], count: int, rate: float) -> bool:
    """Whether the sizes of samples have the binomial law, by mean and spread; wrong once in 10^5."""
    mean, spread = count * rate, count * rate * (1 - rate)
    middle = abs(np.mean(sizes) - mean) < 4.5 * math.sqrt(spread / len(sizes))
    square = (len(sizes) - 1) * np.var(sizes, ddof=1) / spread
    return bool(middle and 1e-5 < stats.chi2.cdf(square, len(sizes) - 1) < 1 - 1e-5)


def test_sizes_have_the_binomial_law_and_wrong_samplers_do_not() -> None:
    source = SeededEntropy(1)
    draws = [poisson(500, Fraction(1, 25), source) for _ in range(2000)]
    assert is_poisson([len(draw) for draw in draws], 500, 0.04)
    assert not is_poisson([20] * 2000, 500, 0.04)  # shuffled batches of one size
    assert not is_poisson([4 * (len(draw) // 4) for draw in draws], 500, 0.04)  # cut to fours
    assert not is_poisson([len(draw) for draw in draws], 500, 0.042)


def test_every_unit_is_in_as_often_and_none_for_another() -> None:
    source = SeededEntropy(2)
    seen = np.zeros((2000, 40), bool)
    for row in seen:
        row[poisson(40, Fraction(3, 10), source)] = True
    assert stats.chisquare(seen.sum(0)).pvalue > 1e-5
    together = np.corrcoef(seen.T.astype(float)) - np.eye(40)
    assert np.abs(together).max() * math.sqrt(2000) < 5
    after = np.corrcoef(seen[:-1, 0], seen[1:, 0])[0, 1]
    assert abs(after) * math.sqrt(2000) < 5


def test_the_rate_is_exact() -> None:
    """A coin on the edge of 64 bits is decided by what the rate has beyond them."""

    class Edge:
        private = False

        def __init__(self, rate: Fraction) -> None:
            self.coin = (rate.numerator << 64) // rate.denominator
            self.more = SeededEntropy(3)

        def bytes(self, count: int) -> bytes:
            return (
                self.coin.to_bytes(8, "little") * (count // 8) if count % 8 == 0 else self.more.bytes(count)
            )

    inside = sum(len(poisson(10, Fraction(1, 3), Edge(Fraction(1, 3)))) for _ in range(300))
    assert abs(inside - 1000) < 150
    assert not len(poisson(10, Fraction(1, 4), Edge(Fraction(1, 4))))  # 1/4 ends within 64 bits
    assert len(poisson(7, Fraction(1), SYSTEM)) == 7
    assert not len(poisson(7, Fraction(0), SYSTEM))
    assert not len(poisson(0, Fraction(1, 2), SYSTEM))
    for wrong in (Fraction(-1, 2), Fraction(3, 2)):
        with pytest.raises(InvalidRequest):
            poisson(3, wrong, SYSTEM)


def test_images_of_a_unit_come_together_or_not_at_all() -> None:
    units = Units.of(["b", "a", "b", "c", "b"])
    assert [units.images(i).tolist() for i in range(3)] == [[0, 2, 4], [1], [3]]
    sample = units.sample(np.array([0, 2]), 10, lambda: SYSTEM)
    assert sample.images.tolist() == [0, 2, 4, 3]
    assert sample.units.tolist() == [0, 0, 0, 1]


def test_a_unit_with_many_images_gives_some_of_them_drawn_anew() -> None:
    units = Units.of(["a"] * 6 + ["b"])
    source = SeededEntropy(5)
    drawn = [units.sample(np.array([0, 1]), 2, lambda: source) for _ in range(600)]
    assert all(sample.units.tolist() == [0, 0, 1] for sample in drawn)
    pairs = Counter(frozenset(sample.images[:2].tolist()) for sample in drawn)
    assert len(pairs) == 15
    assert stats.chisquare(list(pairs.values())).pvalue > 1e-5


@pytest.mark.parametrize("keys", [["a", None], ["a", ""], [1.0, math.nan], np.array([1.0, np.nan])])
def test_an_image_of_nobody_is_refused(keys: list[object]) -> None:
    with pytest.raises(InvalidRequest, match="image 1 has no unit"):
        Units.of(keys)  # type: ignore[arg-type]


def test_numbers_and_arrays_are_keys() -> None:
    assert len(Units.of(np.array([3, 3, 1]))) == 2  # type: ignore[arg-type]
    assert len(Units.of([])) == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 7), max_size=20), st.integers(1, 9))
def test_micro_batches_hold_everything_once_and_split_nobody(counts: list[int], most: int) -> None:
    units = np.repeat(np.arange(len(counts)), counts)
    sample = Sample(np.arange(len(units)) + 100, units)
    parts = list(sample.parts(most))
    assert [i for part in parts for i in part.images] == sample.images.tolist()
    owners: list[set[int]] = [set(units[part.images - 100].tolist()) for part in parts]
    for first, second in itertools.pairwise(owners):
        assert not first & second
    for part, whose in zip(parts, owners, strict=True):
        assert len(part) <= most or len(whose) == 1
        assert part.units[0] == 0
        assert np.unique(part.units).tolist() == list(range(len(whose)))


def test_an_empty_sample_has_no_parts() -> None:
    empty: Indices = np.empty(0, np.int64)
    assert list(Sample(empty, empty).parts(4)) == []
    assert len(Units.each(3).sample(empty, 4, lambda: SYSTEM)) == 0
    assert len(Units.of(["a", "a"]).sample(empty, 4, lambda: SYSTEM)) == 0
