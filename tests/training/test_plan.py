"""What a run costs, who pays, and what its statement says."""

from __future__ import annotations

from fractions import Fraction

import pytest

from sfumato.core.accounting import Share
from sfumato.core.errors import InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.event import Gaussian, PoissonSampled, Repeated
from sfumato.core.losses import plan_epsilon
from sfumato.core.policy import Policy
from sfumato.training.plan import PlannedRun, plan_run
from sfumato.training.settings import TrainingSettings

ONE = '[project]\nname = "t"\n[populations.p]\nunit = "patient"\nepsilon = 5\ndelta = 1e-4\n'
SUM = ONE + '[populations.p.shares.train]\nkind = "sum"\nepsilon = 5\ndelta = 1e-4\n'
ASKED = {"epsilon": 3, "delta": "1e-5", "expected_batch": 50, "public_size": 1000, "steps": 100}


def planned(policy: str = SUM, **changes: object) -> PlannedRun:
    return plan_run(TrainingSettings(**(ASKED | changes)), Policy.parse(policy))  # type: ignore[arg-type]


def test_the_event_is_the_run_and_the_price_what_was_asked() -> None:
    run = planned()
    sigma = run.noise_multiplier
    assert run.plan.event == Repeated(PoissonSampled("0.05", Gaussian(sigma)), 100)
    assert Fraction("2.98") < run.price <= 3
    assert run.price == plan_epsilon(run.plan.event, Fraction(1, 10**5))
    assert (run.plan.population, run.plan.share, run.plan.delta) == ("p", "train", Fraction(1, 10**5))
    assert run.plan.guarantee == "proven"
    for word in ("patient", "added or removed", "Poisson sample", "0.05"):
        assert word in run.plan.statement
    assert run.plan.parameters["noise_multiplier"]
    assert run.deviation(2.0) >= 2 * float(sigma)


def test_explain_says_unit_price_noise_and_that_a_sum_share_keeps_its_price() -> None:
    told = planned().explain()
    for word in ("patient", "p/train", "epsilon", "1e-05", "100 steps", "keeps its whole price"):
        assert word in told
    assert "keeps its whole price" not in planned(ONE).explain()


def test_a_filter_is_asked_by_its_own_losses() -> None:
    run = planned(ONE)
    assert run.kind == "filter"
    assert run.plan.delta == 0
    share = Share.new("filter", 3, "1e-5")
    assert share.fits(share.charge(run.plan.event))
    assert run.price <= 3
    assert run.noise_multiplier > planned().noise_multiplier
    whole = planned(ONE, epsilon=5, delta=0)  # the share's own delta
    assert whole.delta == Fraction(1, 10**4)
    assert Share.new("filter", 5, "1e-4").fits(Share.new("filter", 5, "1e-4").charge(whole.plan.event))


def test_a_noise_multiplier_is_taken_as_it_is() -> None:
    run = planned(epsilon=0, noise_multiplier="1.3")
    assert run.noise_multiplier == Fraction("1.3")
    assert run.price == plan_epsilon(run.plan.event, Fraction(1, 10**5))


def test_a_fixed_order_is_charged_by_uses_and_without_sampling() -> None:
    run = planned(mechanism="dp-ftrl", bands=4)
    assert run.plan.event == Repeated(Gaussian(run.noise_multiplier), 5)
    assert run.taken(20) == Repeated(Gaussian(run.noise_multiplier), 1)
    assert "correlated over 4 steps" in run.plan.statement


def test_what_took_place_is_the_steps_taken() -> None:
    run = planned()
    assert run.taken(100) is None
    assert run.taken(7) == Repeated(PoissonSampled("0.05", Gaussian(run.noise_multiplier)), 7)


@pytest.mark.parametrize(
    ("policy", "change", "error", "says"),
    [
        (None, {}, PolicyRefused, "sfumato init"),
        ('[project]\nname = "t"\n', {}, PolicyRefused, "declares none"),
        (
            ONE + ONE.partition("\n[")[2].join(["[", ""]).replace("populations.p", "populations.q"),
            {},
            InvalidRequest,
            "say which",
        ),
        (SUM, {"population": "x"}, UnknownName, "population"),
        (SUM, {"share": "x"}, UnknownName, "share"),
        (SUM, {"delta": 0}, InvalidRequest, "delta"),
        (
            SUM.replace("shares.train", "shares.a") + "[populations.p.shares.b]\nepsilon = 0\n",
            {},
            InvalidRequest,
            "say which pays",
        ),
        (
            ONE.replace('"patient"', '"4 pixels"\nrelation = "replace-one"'),
            {"population": "p"},
            PolicyRefused,
            "pixels",
        ),
        (ONE.replace('"patient"', '"patient"\nrelation = "replace-one"'), {}, PolicyRefused, "replace-one"),
    ],
)
def test_who_cannot_pay_is_told_why(
    policy: str | None, change: dict[str, object], error: type[Exception], says: str
) -> None:
    asked = TrainingSettings(**(ASKED | change))  # type: ignore[arg-type]
    known = Policy.parse(policy) if policy is not None else None
    with pytest.raises(error, match=says):
        plan_run(asked, known)
