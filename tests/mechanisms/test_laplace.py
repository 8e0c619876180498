"""The noise of dp-pixelate: its law, where it comes from, and what it cannot be asked for."""

from __future__ import annotations

import math
import os
import pickle
import warnings
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sfumato.core.entropy import SYSTEM, Entropy, SeededEntropy
from sfumato.core.errors import InvalidRequest
from sfumato.core.event import PureDP
from sfumato.core.gate import Gate, Permit, Plan
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy
from sfumato.mechanisms.laplace import Noise

RULES = '[project]\nname = "t"\n[populations.p]\nunit = "1 pixels"\nrelation = "replace-one"\nepsilon = 9'


def gate(entropy: Entropy = SYSTEM) -> Gate:
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=9, delta=0, unit="1 pixels", relation="replace-one")
    ledger.open_share("p", "all", kind="filter", epsilon=9, delta=0)
    return Gate(Policy.parse(RULES), ledger, entropy=entropy)


def plan() -> Plan:
    words = {"action": "redact", "mechanism": "m", "statement": "s", "population": "p", "share": "all"}
    return Plan(**words, guarantee="proven", event=PureDP(1))  # type: ignore[arg-type]


@pytest.fixture
def permit() -> Permit:
    return gate().open(plan())


def law(scale: float, reach: int) -> NDArray[np.float64]:
    """Return the share of each whole number from -reach to reach, and of what lies beyond."""
    q = math.exp(-1 / scale)
    inner = (1 - q) / (1 + q) * q ** np.abs(np.arange(-reach, reach + 1))
    return np.append(inner, 1 - inner.sum())


def fits(draws: NDArray[np.int64], scale: float, reach: int = 12) -> bool:
    """Return whether draws have the law of this scale, by chi-square; wrong once in a million."""
    counts = [int((draws == value).sum()) for value in range(-reach, reach + 1)]
    seen = np.array([*counts, int((np.abs(draws) > reach).sum())])
    expected = law(scale, reach) * len(draws)
    return bool(stats.chisquare(seen, expected).pvalue > 1e-6)


def test_it_has_the_law_of_its_scale_and_of_no_other(permit: Permit) -> None:
    draws = Noise(permit).add(np.zeros(40_000, np.int64), Fraction(4))
    assert fits(draws, 4)
    assert not fits(draws, 4.2)
    assert not fits(2 * Noise(permit).add(np.zeros(40_000, np.int64), Fraction(2)), 4)


def test_it_is_added_to_the_values_and_never_twice_the_same(permit: Permit) -> None:
    noise, values = Noise(permit), np.arange(0, 10**9, 10**6)
    one, two = noise.add(values, Fraction(5)), noise.add(values, Fraction(5))
    assert one.dtype == np.int64
    assert np.abs(one - values).max() < 400
    assert (one != two).any()
    assert noise.drawn == 2000


def test_the_first_draw_makes_the_charge_final() -> None:
    for draw, spent in ((False, 0), (True, 1)):
        door = gate()
        with pytest.raises(ZeroDivisionError):
            _fail_after(door, draw)
        assert door.ledger is not None
        assert door.ledger.totals("p", "all").epsilon == spent


def _fail_after(door: Gate, draw: bool) -> None:
    with door.open(plan()) as permit:
        if draw:
            Noise(permit).add(np.zeros(1, np.int64), Fraction(1))
        raise ZeroDivisionError


def test_no_seed_is_taken() -> None:
    noise = Noise(gate(SeededEntropy(1)).open(plan()))
    with pytest.raises(InvalidRequest, match="takes no seed"):
        noise.add(np.zeros(1, np.int64), Fraction(1))


@pytest.mark.parametrize("scale", [Fraction(0), Fraction(-1)])
def test_a_scale_that_is_none_is_refused(permit: Permit, scale: Fraction) -> None:
    with pytest.raises(InvalidRequest, match="above 0"):
        Noise(permit).add(np.zeros(1, np.int64), scale)


def test_an_ended_permit_gives_none(permit: Permit) -> None:
    permit.settle()
    with pytest.raises(InvalidRequest, match="has ended"):
        Noise(permit).add(np.zeros(1, np.int64), Fraction(1))


def test_it_does_not_travel_to_another_process(permit: Permit) -> None:
    assert pickle.loads(pickle.dumps(Noise(permit))) is None


def test_the_switch_of_opendp_is_left_as_it_was(permit: Permit) -> None:
    from opendp.mod import GLOBAL_FEATURES

    before = set(GLOBAL_FEATURES)
    Noise(permit).add(np.zeros(1, np.int64), Fraction(1))
    assert set(GLOBAL_FEATURES) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
def test_a_forked_process_draws_other_noise(permit: Permit) -> None:
    noise, zeros = Noise(permit), np.zeros(64, np.int64)
    noise.add(zeros, Fraction(1000))

    def in_child() -> bytes:
        ear, mouth = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads, from 3.12 on
            child = os.fork()
        if not child:
            os.write(mouth, noise.add(zeros, Fraction(1000)).tobytes())
            os._exit(0)
        os.close(mouth)
        os.waitpid(child, 0)
        with os.fdopen(ear, "rb") as file:
            return file.read()

    assert len({in_child(), in_child(), noise.add(zeros, Fraction(1000)).tobytes()}) == 3
