"""Draws from tables: that they have the law asked for, where ties and tails are too, and no other."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
import pytest
from noise_laws import Scripted, fits

from sfumato.core.entropy import SYSTEM, SeededEntropy
from sfumato.mechanisms import tables
from sfumato.mechanisms.exact import Kind, Law, cumulative
from sfumato.mechanisms.tables import Sampler, sampler

LAWS = [
    Law("laplace", Fraction(1, 10)),
    Law("laplace", Fraction(1)),
    Law("laplace", Fraction(7, 3)),
    Law("laplace", Fraction(100)),
    Law("laplace", Fraction(601)),
    Law("laplace", Fraction(10**6)),
    Law("laplace", Fraction(10**12)),
    Law("gaussian", Fraction(1, 10)),
    Law("gaussian", Fraction(1)),
    Law("gaussian", Fraction(50, 3)),
    Law("gaussian", Fraction(1000**2)),
    Law("gaussian", Fraction(2401**2)),
    Law("gaussian", Fraction(10**12)),
    Law("gaussian", Fraction(10**24)),
    Law("rounded", Fraction(1, 4)),
    Law("rounded", Fraction(2)),
    Law("rounded", Fraction(299)),
    Law("rounded", Fraction(10**6)),
]


def name(law: Law) -> str:
    return f"{law.kind}-{float(law.width):.4g}"


@pytest.mark.parametrize("law", LAWS, ids=name)
def test_draws_have_the_law_and_not_that_of_a_tenth_less(law: Law) -> None:
    entropy, count = SeededEntropy(5), 2_000_000 if law == LAWS[0] else 150_000
    draws = sampler(law).draw(count, entropy)
    assert fits(draws, law)
    factor = Fraction(81, 100) if law.kind == "gaussian" else Fraction(9, 10)
    narrower = Law(law.kind, law.parameter * factor)
    assert not fits(sampler(narrower).draw(count, entropy), law)


@pytest.mark.parametrize("kind", ["laplace", "gaussian"])
def test_noise_rounded_from_floats_has_another_law(kind: Kind) -> None:
    law = Law(kind, Fraction(1))
    floats = getattr(np.random.default_rng(1), "laplace" if kind == "laplace" else "normal")
    assert not fits(np.rint(floats(size=150_000)).astype(np.int64), law)


def test_rounded_noise_and_discrete_noise_are_told_apart() -> None:
    for scale in (Fraction(1, 4), Fraction(2)):
        discrete, rounded = Law("laplace", scale), Law("rounded", scale)
        assert not fits(sampler(discrete).draw(150_000, SeededEntropy(5)), rounded)
        assert not fits(sampler(rounded).draw(150_000, SeededEntropy(5)), discrete)


@pytest.mark.parametrize("law", [LAWS[2], LAWS[5], LAWS[9], LAWS[12]], ids=name)
def test_a_table_that_is_cut_off_has_another_law(law: Law) -> None:
    cut = Sampler(law)
    assert fits(cut.draw(100_000, SeededEntropy(6)), law)
    # Of what follows, everything falls on the first that is not in the table.
    kept = int(np.searchsorted(cut._limits, int(0.98 * 2**63)))
    cut._limits = np.append(cut._limits[:kept], cut._limits[-1:])
    cut._first = np.minimum(cut._first, kept)
    assert not fits(cut.draw(100_000, SeededEntropy(6)), law)


@pytest.mark.parametrize(
    "law", [Law("laplace", Fraction(1, 2)), LAWS[2], LAWS[8], LAWS[9], LAWS[15]], ids=name
)
def test_with_few_bits_at_first_the_law_is_the_same(law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most draws are ties here, and the tail is reached all the time."""
    known = {}

    def kept(law: Law, bits: int, *, halved: bool, guard: int = 64) -> list[tuple[int, int]]:
        if (law, bits, halved) not in known:
            known[law, bits, halved] = cumulative(law, bits, halved=halved, guard=guard)
        return known[law, bits, halved]

    coarse = Sampler(law, bits=5)
    monkeypatch.setattr(tables, "cumulative", kept)
    draws = coarse.draw(8000, SeededEntropy(7))
    assert fits(draws, law)
    monkeypatch.setattr(coarse, "_refined", lambda prefix, _: int(np.searchsorted(coarse._limits, prefix)))
    assert not fits(coarse.draw(8000, SeededEntropy(7)), law)


@pytest.mark.parametrize("law", [LAWS[4], LAWS[11]], ids=name)
def test_acceptance_by_exact_arithmetic_gives_the_same_law(law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = sampler(law).draw(20_000, SeededEntropy(8))
    asked = []
    below = tables._below

    def counted(prefix: int, bits: int, energy: Fraction, entropy: SeededEntropy) -> bool:
        asked.append(energy)
        return below(prefix, bits, energy, entropy)

    monkeypatch.setattr(tables, "_below", counted)
    monkeypatch.setattr(tables, "MARGIN", 1.0)
    assert (sampler(law).draw(20_000, SeededEntropy(8)) == draws).all()
    assert len(asked) >= 20_000


def test_a_probability_is_compared_bit_by_bit() -> None:
    energy = Fraction(1)
    exact = int(_digits(energy, 256))
    for more in (0, 1, 2):
        # The first bits tie, and so do `more` words that follow.
        words = [exact >> (256 - 64 * (step + 2)) & (2**64 - 1) for step in range(more)]
        following = exact >> (256 - 64 * (more + 2)) & (2**64 - 1)
        for last, expected in ((following - 1, True), (following + 1, False)):
            source = Scripted([*words, last])
            assert tables._below(exact >> 192, 64, energy, source) is expected
            assert source.count == 8 * (more + 1)


def _digits(x: Fraction, bits: int) -> int:
    """Return floor(2^bits exp(-x)), by its series in fractions."""
    term, total, n = Fraction(1), Fraction(0), 0
    while abs(term) > Fraction(1, 2 ** (bits + 40)):
        total, n = total + term, n + 1
        term *= -x / n
    return int(total * 2**bits)


@pytest.mark.parametrize("law", [LAWS[2], LAWS[9], LAWS[3]], ids=name)
@pytest.mark.parametrize("index", [0, 1, 5])
def test_a_tie_is_broken_by_as_many_bits_as_it_takes(law: Law, index: int) -> None:
    table = Sampler(law)
    exact = cumulative(law, 300, halved=True)[index][0]
    first = exact >> (300 - 63)
    assert table._limits[index] == first
    for more in (0, 1, 2):
        words = [exact >> (300 - 63 - 64 * (step + 1)) & (2**64 - 1) for step in range(more)]
        following = exact >> (300 - 63 - 64 * (more + 1)) & (2**64 - 1)
        for last, expected in ((following - 1, index), (following + 1, index + 1)):
            source = Scripted([*words, last])
            assert table._refined(first, source) == expected
            assert source.count == 8 * (more + 1)


@pytest.mark.parametrize("law", [LAWS[0], LAWS[3], LAWS[5], LAWS[10], LAWS[13]], ids=name)
def test_the_tail_goes_on_beyond_the_table(law: Law) -> None:
    table = Sampler(law)
    top, far = 2**63 - 1, 2**64 - 1
    reached = []
    for ones in range(3):
        # U begins with 63 + 64 * ones ones, then comes a nought and whatever else.
        script = Scripted([top, *([1] if table.step > 1 else []), *[far] * ones, 2**63 - 1], "little")
        reached.append(int(table.draw(1, script)[0]))
    assert reached == sorted(set(reached))
    for ones, value in enumerate(reached):
        # P(|X| >= x) is about 2^-(63 + 64 ones), and -log of it about the energy.
        energy = float(law.energy(value))
        assert energy == pytest.approx((63 + 64 * (ones + 1)) * np.log(2), rel=0.5) or ones == 0
    assert abs(reached[-1]) > len(table._limits) - 2


def test_few_and_many_draws_take_the_same_values_from_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    for law in (LAWS[3], LAWS[5], LAWS[10], LAWS[16], LAWS[17]):
        many = sampler(law).draw(20_000, SeededEntropy(9))
        monkeypatch.setattr(tables, "FEW", 1 << 20)
        assert (sampler(law).draw(20_000, SeededEntropy(9)) == many).all()
        monkeypatch.undo()


@pytest.mark.parametrize("law", [LAWS[3], LAWS[5]], ids=name)
def test_all_randomness_comes_from_the_source(law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise AssertionError("randomness from elsewhere")

    monkeypatch.setattr(os, "urandom", refuse)
    monkeypatch.setattr(np.random, "default_rng", refuse)
    source = Scripted([])
    draws = sampler(law).draw(5000, source)
    words = 1 if sampler(law).step == 1 else 2
    assert 8 * words * 5000 <= source.count < 8 * words * 5100
    assert (sampler(law).draw(5000, Scripted([])) == draws).all()


def test_the_system_gives_other_draws_each_time() -> None:
    law = LAWS[3]
    assert (sampler(law).draw(1000, SYSTEM) != sampler(law).draw(1000, SYSTEM)).any()
    assert fits(sampler(law).draw(100_000, SYSTEM), law)
