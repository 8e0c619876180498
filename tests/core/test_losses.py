from __future__ import annotations

from fractions import Fraction

import dp_accounting
import mpmath
import pytest
from dp_accounting import rdp
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.accounting import Share
from sfumato.core.errors import InvalidRequest
from sfumato.core.event import ZCDP, ApproxDP, Composed, Gaussian, Laplace, PoissonSampled, PureDP, Repeated
from sfumato.core.losses import (
    ADD_OR_REMOVE,
    GRIDS,
    REPLACE,
    UNBOUNDED,
    UNIT,
    conversion,
    grid_of,
    plan_epsilon,
    pure_loss,
    renyi_loss,
)

ORDERS = (1.5, 2.0, 8.0, 22.0, 64.0)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.5, 100), st.sampled_from(ORDERS))
def test_gaussian_renyi_loss_is_the_formula_rounded_up(sigma: float, order: float) -> None:
    event = Gaussian(sigma)
    exact = Fraction(order) / (2 * event.noise_multiplier**2)
    (units,) = renyi_loss(event, (order,), ADD_OR_REMOVE)
    assert exact <= Fraction(units, UNIT) <= exact * (1 + Fraction(1, 10**9)) + Fraction(1, UNIT)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 20), st.sampled_from(ORDERS))
def test_pure_renyi_loss_is_that_of_randomised_response(epsilon: float, order: float) -> None:
    """Against the closed form; never below it, never above epsilon."""
    (units,) = renyi_loss(PureDP(epsilon), (order,), ADD_OR_REMOVE)
    with mpmath.workdps(60):
        p = 1 / (1 + mpmath.exp(-epsilon))
        q = 1 - p
        moment = p**order * q ** (1 - order) + q**order * p ** (1 - order)
        closed = float(mpmath.log(moment) / (order - 1))
    assert units / UNIT >= closed * (1 - 1e-9) - 1e-12
    assert units / UNIT <= min(closed * (1 + 1e-6) + 1e-9, epsilon * (1 + 1e-12))


def test_sampled_gaussian_agrees_with_dp_accounting() -> None:
    event = PoissonSampled("0.01", Gaussian("1.1"))
    library = rdp.RdpAccountant(ORDERS)
    library.compose(dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.1)))
    for ours, theirs in zip(renyi_loss(event, ORDERS, ADD_OR_REMOVE), library._rdp, strict=True):
        assert theirs <= ours / UNIT <= theirs * (1 + 1e-9) + 2e-12


def test_the_curve_we_read_from_the_library_is_the_one_it_converts() -> None:
    """`_rdp` is private there: this pins its meaning."""
    library = rdp.RdpAccountant([8.0]).compose(dp_accounting.GaussianDpEvent(2.0))
    assert float(library._rdp[0]) == pytest.approx(8 / (2 * 4))


def test_composition_adds_and_repetition_multiplies() -> None:
    one = renyi_loss(Gaussian(5), ORDERS, ADD_OR_REMOVE)
    assert renyi_loss(Repeated(Gaussian(5), 7), ORDERS, ADD_OR_REMOVE) == tuple(7 * value for value in one)
    both = renyi_loss(Composed([Gaussian(5), Gaussian(5)]), ORDERS, ADD_OR_REMOVE)
    assert both == tuple(2 * value for value in one)
    assert renyi_loss(Composed([]), ORDERS, ADD_OR_REMOVE) == (0,) * len(ORDERS)


def test_what_has_no_bound_is_never_small() -> None:
    assert renyi_loss(Gaussian("1e-6"), ORDERS, ADD_OR_REMOVE) == (UNBOUNDED,) * len(ORDERS)
    assert pure_loss(Gaussian(1)) >= 2**20


def test_pure_losses_are_exact() -> None:
    assert pure_loss(Repeated(PureDP("1/7"), 7)) == 1
    assert pure_loss(Laplace(50)) == Fraction(1, 50)
    assert pure_loss(PoissonSampled("0.1", PureDP(1))) == 1


def test_sampling_under_replace_one_is_refused_rather_than_guessed() -> None:
    with pytest.raises(InvalidRequest, match="add-or-remove-one"):
        renyi_loss(PoissonSampled("0.1", Gaussian(1)), ORDERS, REPLACE)


def test_an_approximate_event_names_the_share_it_belongs_in() -> None:
    with pytest.raises(InvalidRequest, match="'sum'"):
        renyi_loss(ApproxDP(1, "1e-6"), ORDERS, ADD_OR_REMOVE)


def test_training_plan_is_priced_as_dp_accounting_does_and_tighter_than_renyi() -> None:
    step = PoissonSampled("0.01", Gaussian("1.1"))
    ours = float(plan_epsilon(Repeated(step, 1000), Fraction(1, 10**5)))
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.1)), 1000
    )
    theirs = PLDAccountant().compose(event).get_epsilon(1e-5)
    assert theirs <= ours <= theirs * 1.005
    assert ours < rdp.RdpAccountant().compose(event).get_epsilon(1e-5)


@pytest.mark.parametrize("epsilon", ["1e-11", "1e-8", "1e-5", "1e-4"])
def test_tiny_pure_losses_are_not_rounded_away(epsilon: str) -> None:
    """The library's difference of large numbers loses them; order * epsilon^2 / 2 bounds them exactly."""
    (units,) = renyi_loss(PureDP(epsilon), (22.0,), ADD_OR_REMOVE)
    with mpmath.workdps(80):
        e = mpmath.mpf(epsilon)
        p, q = 1 / (1 + mpmath.exp(-e)), 1 / (1 + mpmath.exp(e))
        moment = p**22 * q ** (1 - 22) + q**22 * p ** (1 - 22)
        assert units >= mpmath.log(moment) / 21 * UNIT


@pytest.mark.parametrize(
    ("sigma", "times", "delta"),
    [(1, 100, "1e-14"), (1, 100, "1e-10"), (5, 10_000, "1e-10"), (10, 1000, "1e-10")],
)
def test_the_noise_of_the_fft_does_not_make_a_plan_cheap(sigma: int, times: int, delta: str) -> None:
    """Against the exact curve of composed Gaussians (Balle and Wang 2018), in high precision."""
    epsilon = plan_epsilon(Repeated(Gaussian(sigma), times), Fraction(delta))
    with mpmath.workdps(60):
        mu = mpmath.sqrt(times) / sigma
        e = mpmath.mpf(epsilon.numerator) / epsilon.denominator
        exact = mpmath.ncdf(mu / 2 - e / mu) - mpmath.exp(e) * mpmath.ncdf(-mu / 2 - e / mu)
        assert exact <= mpmath.mpf(delta)


@pytest.mark.parametrize("event", [Gaussian("1e-280"), Laplace("1e-280"), Gaussian("1e-3"), Laplace("1e-5")])
def test_absurd_noise_costs_a_lot_and_crashes_nothing(event) -> None:
    assert plan_epsilon(event, Fraction(1, 10**6)) > 1000


def test_plans_without_a_distribution_are_priced_by_renyi() -> None:
    gaussian = plan_epsilon(Gaussian(5), Fraction(1, 10**6))
    zcdp = plan_epsilon(ZCDP(Fraction(1, 50)), Fraction(1, 10**6))
    assert gaussian < zcdp < 2 * gaussian
    assert plan_epsilon(ApproxDP("0.5", "1e-6"), Fraction(1, 10**6)) == Fraction(1, 2)
    assert plan_epsilon(Repeated(PureDP("1/3"), 3), Fraction(0)) == 1


def test_conversion_is_that_of_the_library() -> None:
    for order in ORDERS:
        library, _ = rdp.compute_epsilon([order], [0.7], 1e-6)
        assert 0.7 + conversion(order, Fraction(1, 10**6)) == pytest.approx(library, rel=1e-12)


def test_a_plan_with_next_to_no_noise_is_priced_without_filling_the_memory() -> None:
    """Its loss distribution would have 10^10 points."""
    for event in (
        Gaussian("0.001"),
        Repeated(Gaussian("0.1"), 10**6),
        PoissonSampled("0.1", Gaussian("0.001")),
    ):
        assert plan_epsilon(event, Fraction(1, 10**6)) > 1000


@pytest.mark.parametrize(
    ("rate", "noise", "steps"),
    [("0.0128", "1.1", 800), ("0.01", 1, 10_000), ("0.001", "0.6", 30_000), ("0.05", 4, 2000), (1, 50, 100)],
)
@pytest.mark.parametrize("delta", ["1e-5", "1e-8"])
def test_wider_cells_cost_no_more_than_half_a_percent_and_never_less(rate, noise, steps, delta) -> None:
    event = Repeated(PoissonSampled(rate, Gaussian(noise)), steps)
    part = Fraction(delta)
    ours, fine = plan_epsilon(event, part), plan_epsilon(event, part, ADD_OR_REMOVE, GRIDS[0])
    assert fine <= ours <= fine * Fraction(1005, 1000)
    assert grid_of(event, part) in GRIDS


def test_a_step_less_never_costs_more_on_the_cells_of_the_whole() -> None:
    event = PoissonSampled("0.0128", Gaussian("1.1"))
    share = Share.new("sum", 10, "1e-6")
    for steps in (2, 100, 800, 5000):
        reserved = Repeated(event, steps)
        charged = share.charge(reserved, "1e-6")
        assert share.settlement(reserved, Repeated(event, steps - 1), "1e-6") == charged
