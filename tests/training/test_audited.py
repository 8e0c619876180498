"""The training room's own sampler, clipping and noise stand an audit, and an audit sees when they do not."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from sfumato.audit import Claim, Report, Settings, Subject, audit  # noqa: E402
from sfumato.audit.direct import clipping  # noqa: E402
from sfumato.core.errors import AuditFailed, InvalidRequest  # noqa: E402
from sfumato.core.project import Project  # noqa: E402
from sfumato.training.audited import Rehearsal  # noqa: E402
from sfumato.training.engine import Clipping  # noqa: E402
from sfumato.training.loop import Private  # noqa: E402
from sfumato.training.run import TrainingRun, open_run  # noqa: E402
from sfumato.training.settings import TrainingSettings  # noqa: E402

SIGMA, RATE, STEPS = Fraction("4.802"), Fraction("0.137"), 292
CLAIM = Claim.of(noise_multiplier=SIGMA, rate=RATE, steps=STEPS, delta="1e-5")


def audited(rehearsal: Rehearsal) -> Report:
    subject = Subject(
        CLAIM,
        rehearsal.step,
        rehearsal.contribution,
        rehearsal.canaries,
        sample=rehearsal.sample,
        units=rehearsal.units,
    )
    return audit(subject, settings=Settings(canaries=rehearsal.canaries))


def rehearsal(canaries: int = 1000, bound: float = 1.0, kind: str = "flat", **more: object) -> Rehearsal:
    settings = TrainingSettings(
        noise_multiplier=SIGMA,
        rate=RATE,
        public_size=2000,
        steps=STEPS,
        delta="1e-5",
        clip=bound,
        clipping=kind,  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
    )
    return Rehearsal(settings, canaries=canaries)


@pytest.mark.parametrize("bound", [1.0, 0.013])
def test_the_real_code_stands_the_audit(bound: float) -> None:
    report = audited(rehearsal(bound=bound))
    assert report.ok, report.reasons
    assert report.epsilon < report.claim.epsilon < report.ceiling


@pytest.mark.parametrize(
    "more", [{"physical_batch": 16}, {"precision": "bfloat16"}, {"views": 2}, {"kind": "automatic"}]
)
def test_other_ways_through_the_loop_stand_it_too(more: dict[str, object]) -> None:
    report = audited(rehearsal(400, **more))  # type: ignore[arg-type]
    assert report.ok, report.reasons


@pytest.mark.slow
def test_the_real_code_stands_the_audit_with_five_thousand_canaries() -> None:
    report = audited(rehearsal(5000))
    assert report.ok, report.reasons
    assert 0.5 < report.epsilon < report.claim.epsilon
    assert report.seconds < 60


@pytest.mark.parametrize("kind", ["flat", "automatic", "per-layer"])
@pytest.mark.parametrize("size", [1, 64, 700])
def test_no_gradient_adds_more_than_the_bound(kind: str, size: int) -> None:
    finding = clipping(rehearsal(size, 0.7, kind).contribution, size)
    assert finding.p == 1.0, finding.said


def test_noise_that_is_halved_in_the_real_code_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.mechanisms.gaussian import GaussianNoise

    add = GaussianNoise.add_to
    monkeypatch.setattr(GaussianNoise, "add_to", lambda self, v, std, grid: add(self, v, std / 2, grid))
    assert "noise-deviation" in str(audited(rehearsal()).reasons)


def test_clipping_that_is_left_out_of_the_real_code_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clipping, "factors", lambda self, squares, layers=1: torch.ones_like(squares))
    reasons = str(audited(rehearsal()).reasons)
    assert "contribution" in reasons
    assert "clip-bound" in reasons


def test_batches_of_a_fixed_size_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.training import audited as ours
    from sfumato.training import loop

    def fixed(count: int, rate: Fraction, source: object) -> np.ndarray:
        return np.sort(np.random.default_rng().choice(count, round(count * rate), replace=False))

    for module in (ours, loop):
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


def test_two_micro_batches_that_clip_one_unit_twice_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a unit's images fell into two micro-batches, each part would be clipped on its own."""
    from sfumato.training.sampling import Sample

    def apart(self: Sample, most: int) -> Iterator[Sample]:
        for start in range(0, len(self.images), most):
            yield Sample(self.images[start : start + most], self.units[start : start + most])

    monkeypatch.setattr(Sample, "parts", apart)
    assert clipping(rehearsal(64, physical_batch=2).contribution, 64).p == 0.0


def test_correlated_noise_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="dp-ftrl"):
        rehearsal(64, mechanism="dp-ftrl")
    aimed = TrainingSettings(epsilon=1, delta="1e-5", rate="0.1", public_size=100, steps=3)
    with pytest.raises(InvalidRequest, match="noise multiplier"):
        Rehearsal(aimed, canaries=64)
    assert Rehearsal(aimed, canaries=64, noise_multiplier=SIGMA).step(np.arange(9)).shape == (64,)


def guard(run: TrainingRun) -> None:
    """What people hand to a release: the audit of the run's own settings."""
    sigma = run.planned.noise_multiplier
    code = Rehearsal(run.settings, canaries=300, noise_multiplier=sigma)
    claim = Claim.of_event(run.planned.plan.event, run.planned.delta, unit=run.planned.unit)
    subject = Subject(claim, code.step, code.contribution, 300, sample=code.sample, units=code.units)
    audit(subject, settings=Settings(canaries=300)).require()


@pytest.mark.parametrize("broken", [False, True])
def test_a_run_whose_audit_fails_releases_nothing(
    broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Project.init(tmp_path, name="demo").ledger.close()
    with (tmp_path / "sfumato.toml").open("a") as file:
        file.write('\n[populations.faces]\nunit = "image"\nepsilon = 9\ndelta = 1e-5\n')
    model = torch.nn.Linear(4, 2)
    data = (torch.randn(40, 4), torch.randint(0, 2, (40,)))
    settings = TrainingSettings(epsilon=2, rate="0.2", public_size=40, steps=5, delta="1e-6")
    with open_run(Project(tmp_path), settings) as run:
        private = Private(
            model,
            torch.nn.CrossEntropyLoss(reduction="none"),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            run=run,
        )
        for batch in private.batches(data):
            private.step(batch)
        out = tmp_path / "model.safetensors"
        if not broken:
            receipt = run.release(model, out, guards=[guard])
            assert out.exists()
            assert Claim.of_receipt(receipt.body, "1e-6").steps == 5
            return
        monkeypatch.setattr(Clipping, "factors", lambda self, squares, layers=1: torch.ones_like(squares))
        with pytest.raises(AuditFailed, match="not released"):
            run.release(model, out, guards=[guard])
        assert not out.exists()
