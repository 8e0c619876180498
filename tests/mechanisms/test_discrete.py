"""Discrete noise behind a permit: both sources, what it takes, what it refuses, and what it promises."""

from __future__ import annotations

import functools
import math
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from noise_laws import Scripted, fits
from numpy.typing import NDArray

from sfumato.core.entropy import SYSTEM, Entropy, SeededEntropy
from sfumato.core.errors import InvalidRequest, MissingExtra
from sfumato.core.event import ZCDP, PureDP
from sfumato.core.event import Laplace as LaplaceEvent
from sfumato.core.gate import Gate, Permit, Plan
from sfumato.core.ledger import Ledger
from sfumato.core.losses import ADD_OR_REMOVE, UNIT, renyi_loss
from sfumato.core.policy import Policy
from sfumato.mechanisms import discrete
from sfumato.mechanisms.discrete import FEW, Noise, root_up
from sfumato.mechanisms.exact import Law, cumulative

RULES = '[project]\nname = "t"\n[populations.p]\nunit = "person"\nepsilon = 9\ndelta = 1e-6'


def gate(entropy: Entropy = SYSTEM) -> Gate:
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=9, delta="1e-6", unit="person", relation="add-or-remove-one")
    ledger.open_share("p", "all", kind="filter", epsilon=9, delta="1e-6")
    return Gate(Policy.parse(RULES), ledger, entropy=entropy)


def plan() -> Plan:
    words = {"action": "query", "mechanism": "m", "statement": "s", "population": "p", "share": "all"}
    return Plan(**words, guarantee="proven", event=ZCDP("0.01"))  # type: ignore[arg-type]


@pytest.fixture
def permit() -> Permit:
    return gate().open(plan())


def seeded(seed: int = 1) -> Noise:
    return Noise(gate(SeededEntropy(seed)).open(plan()))


def drawn(noise: Noise, law: Law, count: int) -> NDArray[np.int64]:
    add: Callable[..., NDArray[np.int64]] = getattr(noise, law.kind)
    return add(np.zeros(count, np.int64), law.parameter)


@pytest.mark.parametrize(
    "law",
    [
        Law("laplace", Fraction(1, 2)),
        Law("laplace", Fraction(20)),
        Law("laplace", Fraction(10**6)),
        Law("gaussian", Fraction(1, 2)),
        Law("gaussian", Fraction(50**2)),
        Law("gaussian", Fraction(10**12)),
    ],
    ids=lambda law: f"{law.kind}-{law.parameter}",
)
def test_both_sources_have_the_law_and_a_tenth_less_has_not(permit: Permit, law: Law) -> None:
    pytest.importorskip("opendp", reason="needs OpenDP: pip install 'sfumato[queries]'")
    less = Law(law.kind, law.parameter * Fraction(9, 10) ** (1 if law.kind == "laplace" else 2))
    for source in ("own", "opendp"):
        noise = Noise(permit, source=source)  # type: ignore[arg-type]
        assert fits(drawn(noise, law, 20_000), law)
        assert not fits(drawn(noise, less, 20_000), law)


def test_noise_is_added_to_values_of_any_shape_and_never_twice_the_same(permit: Permit) -> None:
    noise = Noise(permit)
    values = np.arange(24, dtype=np.int32).reshape(2, 3, 4)[:, ::-1] * 10**6
    one, two = noise.gaussian(values, Fraction(10**4)), noise.gaussian(values, Fraction(10**4))
    assert one.dtype == np.int64
    assert one.shape == values.shape
    assert np.abs(one - values).max() < 3000
    assert (one != two).any()
    assert noise.drawn == 48
    assert noise.laplace(np.zeros((3, 0), np.int64), Fraction(1)).shape == (3, 0)
    assert noise.laplace(np.array(5), Fraction(1, 100)).shape == ()


def test_few_values_go_to_opendp_and_many_to_tables(permit: Permit, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opendp", reason="needs OpenDP: pip install 'sfumato[queries]'")
    asked: list[int] = []
    monkeypatch.setattr(
        discrete, "_opendp", lambda law, count: asked.append(count) or np.zeros(count, np.int64)
    )
    noise = Noise(permit)
    for count in (1, FEW, FEW + 1):
        noise.laplace(np.zeros(count, np.int64), Fraction(3))
    Noise(permit, source="own").laplace(np.zeros(1, np.int64), Fraction(3))
    seeded().laplace(np.zeros(1, np.int64), Fraction(3))
    assert asked == [1, FEW]


def test_without_opendp_tables_make_all_noise(permit: Permit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    law = Law("gaussian", Fraction(9))
    assert fits(drawn(Noise(permit), law, 4000), law)
    with pytest.raises(MissingExtra, match="OpenDP's samplers"):
        drawn(Noise(permit, source="opendp"), law, 10)


def test_a_seeded_stream_replays_and_noise_does_not_depend_on_the_values() -> None:
    for size in (10, 30_000):
        for method, parameter in (
            ("laplace", Fraction(9, 2)),
            ("rounded_laplace", Fraction(9, 2)),
            ("gaussian", Fraction(10**8)),
        ):
            zeros, values = np.zeros(size, np.int64), np.arange(size) ** 3 - 10**12
            one, two, same = (
                getattr(seeded(), method)(numbers, parameter) for numbers in (zeros, values, zeros)
            )
            assert (one == same).all()
            assert (two - values == one).all()
            assert (getattr(seeded(2), method)(zeros, parameter) != one).any()


@pytest.mark.parametrize("size", [10, 30_000])
def test_every_byte_comes_from_the_permit_whatever_the_values(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise AssertionError("randomness from elsewhere")

    taken = []
    for values in (np.zeros(size, np.int64), np.full(size, -(2**62) + 1)):
        source = Scripted([])
        noise = Noise(gate(source).open(plan()), source="own")
        with monkeypatch.context() as patch:
            patch.setattr(os, "urandom", refuse)
            noise.laplace(values, Fraction(4))
            noise.gaussian(values, Fraction(10**10))
            noise.rounded_laplace(values, Fraction(4))
        taken.append(source.count)
    assert taken[0] == taken[1] >= 32 * size


def test_the_first_draw_makes_the_charge_final_and_an_ended_permit_gives_none() -> None:
    for draw in (False, True):
        door = gate()
        with pytest.raises(ZeroDivisionError):
            _fail_after(door, draw)
        assert door.ledger is not None
        assert bool(sum(door.ledger.totals("p", "all").renyi)) is draw
    permit = gate().open(plan())
    permit.settle()
    for values in (np.zeros(0, np.int64), np.zeros(3, np.int64)):
        with pytest.raises(InvalidRequest, match="has ended"):
            Noise(permit).gaussian(values, Fraction(1))


def _fail_after(door: Gate, draw: bool) -> None:
    with door.open(plan()) as permit:
        if draw:
            Noise(permit).laplace(np.zeros(1, np.int64), Fraction(1))
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("values", "parameter", "words"),
    [
        (np.zeros(1), Fraction(1), "whole numbers"),
        (np.zeros(1, np.uint64), Fraction(1), "whole numbers"),
        (np.zeros(1, bool), Fraction(1), "whole numbers"),
        (np.array([2**62]), Fraction(1), "bound the sums"),
        (np.array([-(2**63)]), Fraction(1), "bound the sums"),
        (np.array([0]), Fraction(0), "above 0"),
        (np.array([0]), Fraction(-1), "above 0"),
        (np.array([0]), 1.5, "must be a fraction"),
        (np.array([0]), math.nan, "must be a fraction"),
        (np.array([0]), Fraction(2**81), "at most"),
        (np.array([0]), Fraction(1, 2**5000), "4096 bits"),
    ],
)
def test_what_cannot_be_is_refused(
    permit: Permit, values: NDArray[np.int64], parameter: Fraction, words: str
) -> None:
    for add in (Noise(permit).laplace, Noise(permit).gaussian):
        with pytest.raises(InvalidRequest, match=words):
            add(values, parameter)
    with pytest.raises(InvalidRequest, match="has no rounded Laplace"):
        Noise(permit, source="opendp").rounded_laplace(np.zeros(1, np.int64), Fraction(1))
    with pytest.raises(InvalidRequest, match="at most"):
        Noise(permit).rounded_laplace(np.zeros(1, np.int64), Fraction(2**39 + 1))
    with pytest.raises(InvalidRequest, match="'auto', 'own' or 'opendp'"):
        Noise(permit, source="numpy")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="takes no seed"):
        drawn(Noise(gate(SeededEntropy(1)).open(plan()), source="opendp"), Law("laplace", Fraction(1)), 1)


def test_values_near_the_ends_do_not_wrap_round() -> None:
    ends = np.repeat([2**62 - 1, -(2**62) + 1], 5000)
    noisy = seeded().laplace(ends, Fraction(2**40))
    assert np.abs(noisy - ends).max() < 2**46
    assert (np.sign(noisy) == np.sign(ends)).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork, which is what is tested")
def test_a_forked_process_draws_other_noise(permit: Permit) -> None:
    noise, zeros = Noise(permit, source="own"), np.zeros(64, np.int64)
    noise.laplace(zeros, Fraction(1000))

    def in_child() -> bytes:
        ear, mouth = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads, from 3.12 on
            child = os.fork()
        if not child:
            os.write(mouth, noise.laplace(zeros, Fraction(1000)).tobytes())
            os._exit(0)
        os.close(mouth)
        os.waitpid(child, 0)
        with os.fdopen(ear, "rb") as file:
            return file.read()

    assert len({in_child(), in_child(), noise.laplace(zeros, Fraction(1000)).tobytes()}) == 3
    assert pickle.loads(pickle.dumps(noise)) is None


def test_opendp_is_never_told_a_smaller_scale() -> None:
    for value in (Fraction(2), Fraction(1, 3), Fraction(10**23 + 1), Fraction(7, 10**9), Fraction(9)):
        assert Fraction(root_up(value)) ** 2 >= value
        assert root_up(value) == pytest.approx(math.sqrt(value), rel=1e-15)


def test_it_loads_neither_opendp_nor_torch() -> None:
    code = (
        "import sys, sfumato.mechanisms.discrete as d; print(sorted({'opendp', 'torch'} & set(sys.modules)))"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout == "[]\n"


@functools.cache
def pmf(law: Law, reach: int, bits: int = 700) -> dict[int, tuple[Fraction, Fraction]]:
    """Return exact bounds of P(X = k) for |k| <= reach, out of the sums that tables are made of."""
    sums = [
        (Fraction(low, 2**bits), Fraction(high, 2**bits)) for low, high in cumulative(law, bits, halved=True)
    ]
    found = {0: sums[0]}
    for k in range(1, reach + 1):
        low, high = sums[k][0] - sums[k - 1][1], sums[k][1] - sums[k - 1][0]
        found[k] = found[-k] = low / 2, high / 2
    return found


@pytest.mark.parametrize(
    ("distance", "epsilon"), [(1, Fraction(1, 2)), (3, Fraction(1)), (7, Fraction(1, 10))]
)
def test_laplace_of_scale_d_over_epsilon_is_epsilon_private(distance: int, epsilon: Fraction) -> None:
    def worst(scale: Fraction) -> float:
        law = pmf(Law("laplace", scale), 60 + distance)
        ratios = [law[k][1] / law[k - distance][0] for k in range(-60, 61)]
        return math.log(max(ratios))

    assert worst(distance / epsilon) == pytest.approx(float(epsilon), rel=1e-12)
    assert worst(distance / epsilon * Fraction(9, 10)) > epsilon * Fraction(11, 10)


@pytest.mark.parametrize("distance", [1, 2, 5])
@pytest.mark.parametrize("order", [1.5, 4, 21.75, 64])
def test_rounded_noise_loses_no_more_than_the_continuous_and_discrete_noise_does(
    distance: int, order: float
) -> None:
    """Rounding is done after; so the event is Laplace. On whole numbers next to each other it is not."""
    scale = Fraction(distance * 2)
    bound = renyi_loss(LaplaceEvent(scale / distance), (order,), ADD_OR_REMOVE)[0] / UNIT

    def loss(rounded: bool) -> float:
        r, reach = math.exp(-1 / (2 * float(scale))), 400 * distance
        k = np.abs(np.arange(-reach, reach + 1.0))
        weights = r ** (2 * k) * np.where(k == 0, 2 * r / (1 + r), 1) if rounded else r ** (2 * k)
        p = weights / weights.sum()
        one, other = p[distance:], p[:-distance]
        return max(
            math.log(float((a * (a / b) ** (order - 1)).sum())) / (order - 1)
            for a, b in ((one, other), (other, one))
        )

    assert loss(rounded=True) <= bound
    assert loss(rounded=False) <= renyi_loss(PureDP(distance / scale), (order,), ADD_OR_REMOVE)[0] / UNIT
    if distance == 1:
        assert loss(rounded=False) > bound


@pytest.mark.parametrize(("distance", "variance"), [(1, Fraction(4)), (2, Fraction(9, 2)), (3, Fraction(1))])
@pytest.mark.parametrize("order", [1.25, 2, 3.5, 6])
def test_gaussian_noise_has_the_renyi_loss_of_zcdp(distance: int, variance: Fraction, order: float) -> None:
    """CKS 2020, Theorem 14: D_order <= order D^2 / (2 variance), here by the exact law with bounds."""

    def loss(variance: Fraction) -> tuple[float, float]:
        law = Law("gaussian", variance)
        reach = 18 * math.ceil(law.width) + 2 * distance
        p = pmf(law, reach + distance)
        least = most = 0.0
        for k in range(-reach, reach + 1):
            (low, high), (other_low, other_high) = p[k], p[k - distance]
            assert high / low < 1 + Fraction(1, 2**60)  # so that float64 is all that rounds
            least += float(low) * float(low / other_high) ** (order - 1)
            most += float(high) * float(high / other_low) ** (order - 1)
        # Beyond, the terms fall by more than half each.
        k = -reach
        most += 4 * float(p[k][1]) * float(p[k][1] / p[k - distance][0]) ** (order - 1)
        return math.log(least) / (order - 1) - 1e-12, math.log(most) / (order - 1) + 1e-12

    bound = order * distance**2 / (2 * float(variance))
    least, most = loss(variance)
    assert most <= bound * (1 + 1e-9)
    assert least >= 0.5 * bound
    narrower = loss(variance * Fraction(81, 100))[0]
    assert narrower > bound or least < 0.9 * bound
    if float(order).is_integer():  # then the bound is met exactly
        assert least == pytest.approx(bound, rel=1e-9)
