"""Calibration: as tight as dp-accounting's own, quick, and never above what was asked."""

from __future__ import annotations

import time
from fractions import Fraction

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant

from sfumato.core.accounting import Share
from sfumato.core.calibration import Spending, noise_multiplier_for, training_event
from sfumato.core.errors import InvalidRequest
from sfumato.core.event import Gaussian, PoissonSampled, Repeated
from sfumato.core.losses import plan_epsilon, rough_epsilon

DELTA = Fraction(1, 10**5)
#: epsilon, rate, steps: the Fashion-MNIST run of the figures, and others far from it.
RUNS = [
    ("3", "0.137", 292),
    ("1", "0.137", 292),
    ("8", "0.01", 10_000),
    ("0.5", "0.3", 1000),
    ("2", "1", 50),
    ("4", "0.0005", 2000),
]


@pytest.mark.parametrize(("epsilon", "rate", "steps"), RUNS)
def test_it_is_the_least_noise_that_the_ledger_admits(epsilon: str, rate: str, steps: int) -> None:
    sigma = noise_multiplier_for(epsilon=epsilon, delta=DELTA, rate=rate, steps=steps)
    assert plan_epsilon(training_event(sigma, rate, steps), DELTA) <= Fraction(epsilon)
    assert plan_epsilon(training_event(sigma * Fraction("0.997"), rate, steps), DELTA) > Fraction(epsilon)
    assert sigma.denominator <= 10**8


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [RUNS[0], RUNS[4]])
def test_it_agrees_with_the_library_within_half_a_percent(epsilon: str, rate: str, steps: int) -> None:
    def event(sigma: float) -> dp_accounting.DpEvent:
        step = dp_accounting.PoissonSampledDpEvent(float(rate), dp_accounting.GaussianDpEvent(sigma))
        return dp_accounting.SelfComposedDpEvent(step, steps)

    theirs = dp_accounting.calibrate_dp_mechanism(PLDAccountant, event, float(epsilon), 1e-5, tol=1e-3)
    ours = float(noise_multiplier_for(epsilon=epsilon, delta=DELTA, rate=rate, steps=steps))
    assert abs(ours / theirs - 1) < 0.005


@pytest.mark.parametrize(("epsilon", "rate", "steps"), RUNS[:3])
def test_a_run_for_a_whole_filter_fits_it(epsilon: str, rate: str, steps: int) -> None:
    sigma = noise_multiplier_for(epsilon=epsilon, delta=DELTA, rate=rate, steps=steps, by="renyi")
    share = Share.new("filter", epsilon, DELTA)
    assert share.fits(share.charge(training_event(sigma, rate, steps)))
    assert not share.fits(share.charge(training_event(sigma * Fraction("0.999"), rate, steps)))
    assert sigma >= noise_multiplier_for(epsilon=epsilon, delta=DELTA, rate=rate, steps=steps)


def test_it_takes_no_time_that_anybody_would_notice() -> None:
    noise_multiplier_for(epsilon=2, delta=DELTA, rate="0.01", steps=10)  # imports the library
    start = time.process_time()
    noise_multiplier_for(epsilon=3, delta="1.1e-5", rate="0.137", steps=292)
    assert time.process_time() - start < 4, "under half a second on a free core"


def test_a_careless_rounding_would_cost_more_than_was_asked() -> None:
    sigma = noise_multiplier_for(epsilon=3, delta=DELTA, rate="0.137", steps=292)
    down = Fraction(int(sigma * 100), 100)
    assert plan_epsilon(training_event(down, "0.137", 292), DELTA) > 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0},
        {"delta": 0},
        {"rate": 0},
        {"rate": 2},
        {"steps": 0},
        {"steps": True},
        {"steps": 1.5},
        {"epsilon": -1},
        {"relation": "replace-one"},
        {"epsilon": "1e-9", "steps": 10**8},
    ],
)
def test_what_cannot_be_calibrated_is_refused(wrong: dict[str, object]) -> None:
    asked = {"epsilon": 1, "delta": DELTA, "rate": "0.1", "steps": 100} | wrong
    with pytest.raises(InvalidRequest):
        noise_multiplier_for(**asked)  # type: ignore[arg-type]


def test_the_event_of_a_run() -> None:
    assert training_event(1, "0.1", 3) == Repeated(PoissonSampled("0.1", Gaussian(1)), 3)
    assert training_event(1, 1, 3) == Repeated(Gaussian(1), 3)


def test_what_is_spent_grows_to_the_price_and_bounds_the_true_loss() -> None:
    event = training_event("3.4", "0.137", 292)
    price = plan_epsilon(event, DELTA)
    spending = Spending(event, DELTA, most=price)
    values = [spending.after(steps) for steps in range(0, 293, 4)]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[-1] == price
    free = Spending(event, DELTA)
    assert abs(free.after(292) - rough_epsilon(event, DELTA)) <= Fraction(1, 10**8)
    for steps in (1, 50, 200):
        true = plan_epsilon(training_event("3.4", "0.137", steps), DELTA)
        assert true <= spending.after(steps) <= true * Fraction(7, 5)


def test_what_is_spent_is_asked_for_in_no_time() -> None:
    spending = Spending(training_event("3.4", "0.137", 292), DELTA)
    spending.after(1)
    start = time.process_time()
    for steps in range(1000):
        spending.after(steps % 292)
    assert time.process_time() - start < 1
