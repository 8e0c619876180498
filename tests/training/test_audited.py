"""The training room's own sampler, clipping and noise stand an audit, and an audit sees when they do not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from sfumato.audit import Claim, Report, Settings, Subject, audit  # noqa: E402
from sfumato.audit.direct import clipping  # noqa: E402
from sfumato.training.audited import Rehearsal  # noqa: E402
from sfumato.training.engine import Clipping  # noqa: E402

SIGMA, RATE, STEPS = Fraction("4.802"), Fraction("0.137"), 292
CLAIM = Claim.of(noise_multiplier=SIGMA, rate=RATE, steps=STEPS, delta="1e-5")


def audited(rehearsal: Rehearsal) -> Report:
    subject = Subject(
        CLAIM, rehearsal.step, rehearsal.contribution, sample=rehearsal.sample, units=rehearsal.units
    )
    return audit(subject, settings=Settings(canaries=rehearsal.canaries))


def rehearsal(canaries: int = 1000, bound: float = 1.0, kind: str = "flat") -> Rehearsal:
    return Rehearsal(noise_multiplier=SIGMA, rate=RATE, canaries=canaries, clipping=Clipping(kind, bound))


@pytest.mark.parametrize("bound", [1.0, 0.013])
def test_the_real_code_stands_the_audit(bound: float) -> None:
    report = audited(rehearsal(bound=bound))
    assert report.ok, report.reasons
    assert report.epsilon < report.claim.epsilon < report.ceiling


@pytest.mark.slow
def test_the_real_code_stands_the_audit_with_five_thousand_canaries() -> None:
    report = audited(rehearsal(5000))
    assert report.ok, report.reasons
    assert 0.5 < report.epsilon < report.claim.epsilon
    assert report.seconds < 60


@pytest.mark.parametrize("kind", ["flat", "automatic", "per-layer"])
@pytest.mark.parametrize("size", [1, 64, 700])
def test_no_gradient_adds_more_than_the_bound(kind: str, size: int) -> None:
    finding = clipping(rehearsal(64, 0.7, kind).contribution, size)
    assert finding.p == 1.0, finding.said


def test_noise_that_is_halved_in_the_real_code_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.mechanisms.gaussian import GaussianNoise

    add = GaussianNoise.add
    monkeypatch.setattr(GaussianNoise, "add", lambda self, v, std, grid: add(self, v, std / 2, grid))
    assert "noise-deviation" in str(audited(rehearsal()).reasons)


def test_clipping_that_is_left_out_of_the_real_code_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clipping, "factors", lambda self, squares, layers=1: torch.ones_like(squares))
    reasons = str(audited(rehearsal()).reasons)
    assert "contribution" in reasons
    assert "clip-bound" in reasons


def test_batches_of_a_fixed_size_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.training import audited as module

    def fixed(count: int, rate: Fraction, source: object) -> np.ndarray:
        return np.sort(np.random.default_rng().choice(count, round(count * rate), replace=False))

    monkeypatch.setattr(module, "poisson", fixed)
    assert "batch-sizes" in str(audited(rehearsal()).reasons)


def test_noise_from_one_seed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.mechanisms import gaussian

    class Stuck:
        """The same bytes for every step."""

        def __init__(self) -> None:
            self.rng = np.random.default_rng(7)

        def __call__(self, out: memoryview) -> None:
            flat = out.cast("B")
            flat[:] = self.rng.bytes(flat.nbytes)

    monkeypatch.setattr(gaussian, "stream", lambda source: Stuck())
    assert "noise-reused" in str(audited(rehearsal()).reasons)
