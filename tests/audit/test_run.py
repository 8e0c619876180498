"""The whole audit: correct code is never blocked, and five faults are each found."""

from __future__ import annotations

import pytest
from dpsgd import FAULTS, Mechanism, priced

from sfumato.audit import Claim, Report, Settings, Subject, audit
from sfumato.audit.canaries import Guesses, play
from sfumato.audit.run import _Family, canary_bounds
from sfumato.core.entropy import SeededEntropy
from sfumato.core.errors import AuditFailed, InvalidRequest
from sfumato.core.event import Gaussian, Laplace, PoissonSampled, PureDP, Repeated

RATE, STEPS, DELTA = 0.137, 292, 1e-5
#: Claimed epsilon -> the noise multiplier that costs it, by dp-accounting.
PRICED = {1: 8.848, 2: 4.802, 4: 2.696, 8: 1.612}


def report_on(epsilon: int, fault: str, seed: int, canaries: int = 5000) -> Report:
    mechanism = Mechanism(PRICED[epsilon], RATE, canaries, seed, fault)
    claim = Claim.of(noise_multiplier=mechanism.sigma, rate=RATE, steps=STEPS, delta=DELTA)
    subject = Subject(
        claim, mechanism.step, mechanism.contribution, sample=mechanism.sample, units=mechanism.units
    )
    return audit(subject, settings=Settings(canaries=canaries), entropy=SeededEntropy(seed))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_correct_code_is_not_blocked(fault: str) -> None:
    report = report_on(2, fault, 1)
    assert report.ok == (fault == "")
    if fault:
        with pytest.raises(AuditFailed, match="not released") as caught:
            report.require()
        assert caught.value.reasons == report.reasons
    else:
        assert 0.5 < report.epsilon < report.claim.epsilon < report.ceiling
        assert report.require() is report


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", sorted(PRICED))
def test_at_every_claim(epsilon: int) -> None:
    """The issue's acceptance: bounds below the claim for correct code, every fault found, under a minute."""
    assert priced(epsilon, DELTA, RATE, STEPS) == pytest.approx(PRICED[epsilon], rel=5e-3)
    for seed in range(5):
        report = report_on(epsilon, "", 10 + seed)
        assert report.ok
        assert report.epsilon < epsilon
        assert report.seconds < 60
    for fault in FAULTS[1:]:
        assert not report_on(epsilon, fault, 3).ok, fault


def test_the_canaries_alone_find_halved_noise_and_double_participation() -> None:
    """Not only the direct tests: the lower bound itself passes the claim."""
    for fault in ("half noise", "no clipping", "double participation"):
        mechanism = Mechanism(PRICED[2], RATE, 5000, 2, fault)
        claim = Claim.of(noise_multiplier=PRICED[2], rate=RATE, steps=STEPS, delta=DELTA)
        bounds = canary_bounds(play(mechanism.step, 5000, STEPS, entropy=SeededEntropy(2)), claim)
        assert bounds[0].epsilon > claim.epsilon, fault
        assert bounds[0].p < 0.05


def test_what_is_not_handed_over_is_named() -> None:
    mechanism = Mechanism(2.0, 1.0, 64, 1)
    claim = Claim.of(noise_multiplier=2, rate=1, steps=3, delta=1e-5)
    report = audit(Subject(claim, mechanism.step, fresh=False), settings=Settings(canaries=64))
    assert report.ok
    assert len(report.untested) == 3
    assert "sampler" in report.untested[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_few_canaries_and_one_step_show_little_and_no_wrong(seed: int) -> None:
    mechanism = Mechanism(1.0, 0.5, 64, seed)
    claim = Claim.of(noise_multiplier=1, rate="0.5", steps=1, delta=1e-6)
    report = audit(Subject(claim, mechanism.step), settings=Settings(canaries=64))
    assert report.ok
    assert report.ceiling < 7


@pytest.mark.parametrize(
    ("right", "confidence"),
    [
        (500, 0.5),
        (501, 0.5),
        (510, 0.5),
        (510, 0.9),
        (520, 0.9),
        (530, 0.5),
        (530, 0.975),
        (560, 0.975),
        (1000, 0.9),
    ],
)
def test_a_bound_is_found_however_little_is_shown(right: int, confidence: float) -> None:
    """Down to the edge of what is refuted at all, where the noise that would explain it has no end."""
    claim = Claim.of(noise_multiplier=PRICED[8], rate=RATE, steps=STEPS, delta=DELTA)
    bound = _Family(claim).epsilon_lower(Guesses(right, 1000, 5000), confidence)
    assert 0 <= bound < 20
    assert (bound > 0) or right < 560


def test_a_claim_that_protects_nobody_is_refused() -> None:
    claim = Claim.of(noise_multiplier="0.5", rate=1, steps=200, delta=1e-5)
    with pytest.raises(InvalidRequest, match="protects nobody"):
        audit(Subject(claim, Mechanism(0.5, 1.0, 64, 1).step))


def test_a_claim_of_next_to_nothing_has_a_ceiling_above_it() -> None:
    mechanism = Mechanism(50.0, 1.0, 400, 1)
    claim = Claim.of(noise_multiplier=50, rate=1, steps=1, delta=1e-5)
    report = audit(Subject(claim, mechanism.step), settings=Settings(canaries=400))
    assert report.ok
    assert report.ceiling > 1


def test_a_claim_is_read_from_an_event_and_a_receipt() -> None:
    event = Repeated(PoissonSampled("0.01", Gaussian("1.1")), 100)
    claim = Claim.of_event(event, "1e-5", unit="patient")
    assert claim.event() == event
    assert claim.to_data()["relation"] == "add-or-remove-one"
    body = {"plan": {"event": event.to_data(), "parameters": {"delta": "1e-5"}}, "guarantee": {}}
    assert Claim.of_receipt(body, unit="patient") == claim
    assert Claim.of_event(Gaussian(5), 1e-5).steps == 1
    with pytest.raises(InvalidRequest, match="no delta"):
        Claim.of_receipt({"plan": {"event": event.to_data()}})
    with pytest.raises(InvalidRequest, match="no event"):
        Claim.of_receipt({"plan": {}})
    for other in (PureDP(1), Repeated(Laplace(1), 3), PoissonSampled(0, Gaussian(1))):
        with pytest.raises(InvalidRequest, match="audit of DP-SGD"):
            Claim.of_event(other, 1e-5)
    with pytest.raises(InvalidRequest, match="delta"):
        Claim.of_event(event, 0)


@pytest.mark.parametrize("wrong", [{"canaries": 3}, {"confidence": 1.0}, {"false_alarm": 0.0}])
def test_settings_that_show_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest):
        Settings(**wrong)  # type: ignore[arg-type]
