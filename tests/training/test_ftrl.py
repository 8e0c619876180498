"""Banded matrix factorisation, against matrices written out in full."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
pytest.importorskip("safetensors", reason="needs safetensors: pip install sfumato[training]")

from private_runs import ASKED, COUNT, LOSS, data, model, project_at, sgd  # noqa: E402
from scipy import stats  # noqa: E402

import sfumato.training as training  # noqa: E402
from sfumato.core.entropy import SeededEntropy, below  # noqa: E402
from sfumato.core.errors import InvalidRequest  # noqa: E402
from sfumato.core.event import Gaussian, Repeated  # noqa: E402
from sfumato.core.gate import Gate, Plan  # noqa: E402
from sfumato.mechanisms.gaussian import GaussianNoise  # noqa: E402
from sfumato.training import ftrl  # noqa: E402

FTRL = ASKED | {"mechanism": "dp-ftrl", "bands": 4, "steps": 20}  # each unit once in ten steps


def noise(seed: int) -> GaussianNoise:
    plan = Plan(action="train", mechanism="m", guarantee="heuristic", statement="s")
    return GaussianNoise(Gate(entropy=SeededEntropy(seed)).open(plan))


def error(inverse: np.ndarray, columns: np.ndarray) -> float:
    """Mean squared error of prefix sums, times the squared sensitivity of one use: by full matrices."""
    prefix = np.tril(np.ones_like(inverse))
    return float(((prefix @ inverse) ** 2).sum() / len(inverse) * (columns**2).sum(0).max())


@pytest.mark.parametrize(("bands", "steps"), [(1, 7), (2, 7), (4, 30), (8, 8), (9, 100)])
def test_the_series_give_the_error_of_the_matrices(bands: int, steps: int) -> None:
    for coefficients in (ftrl.root(bands), np.array(ftrl.optimised(bands, steps))):
        full = ftrl.matrix(coefficients, steps)
        assert np.isclose(ftrl.error_of(coefficients, steps), error(np.linalg.inv(full), full))


def test_the_gradient_of_the_search_is_right() -> None:
    at = ftrl.root(5) + 0.01
    value, slope = ftrl._loss(at, 40)
    for index in range(5):
        moved = at.copy()
        moved[index] += 1e-6
        assert np.isclose((ftrl._loss(moved, 40)[0] - value) / 1e-6, slope[index], rtol=1e-3)


def test_more_bands_help_and_the_search_beats_its_start() -> None:
    errors = [ftrl.error_of(np.array(ftrl.optimised(bands, 200)), 200) for bands in (1, 2, 4, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(100.5)  # plain noise: the mean of 1..200
    assert errors[3] < errors[0] / 4
    for bands in (4, 16, 64):
        assert ftrl.error_of(np.array(ftrl.optimised(bands, 200)), 200) < ftrl.error_of(ftrl.root(bands), 200)
    dense = ftrl.matrix(ftrl.root(200), 200)
    assert ftrl.error_of(np.array(ftrl.optimised(200, 200)), 200) <= error(np.linalg.inv(dense), dense)


@pytest.mark.parametrize(("bands", "period", "steps"), [(1, 1, 6), (3, 3, 12), (3, 4, 12), (5, 5, 14)])
def test_the_sensitivity_is_that_of_as_many_uses(bands: int, period: int, steps: int) -> None:
    """For every place in the order and every sign of the gradients: the norm of what a unit moves in C x."""
    full = ftrl.matrix(ftrl.optimised(bands, steps), steps)
    rounds = -(-steps // period)
    worst = 0.0
    for place in range(period):
        columns = full[:, place::period]
        for signs in product((-1, 1), repeat=columns.shape[1]):
            worst = max(worst, float(np.linalg.norm(columns @ np.array(signs))))
    assert worst <= np.sqrt(rounds)
    assert worst > np.sqrt(rounds) * 0.95 - 1e-9
    if bands > 1:  # were the uses nearer than the bands, the event would be too cheap
        near = full[:, :: bands - 1]
        assert np.linalg.norm(near @ np.ones(near.shape[1])) > np.sqrt(near.shape[1])


def test_the_noise_solves_c_w_equals_z() -> None:
    steps, bands = 9, 4
    correlated = ftrl.CorrelatedNoise(noise(3), bands, steps)
    drawn = np.stack([correlated.draw(6) for _ in range(steps)])
    source = noise(3)
    white = np.stack([source.standard(6) for _ in range(steps)])
    full = ftrl.matrix(ftrl.optimised(bands, steps), steps)
    assert np.allclose(full @ drawn, white)
    assert not np.allclose(drawn, white)
    with pytest.raises(InvalidRequest, match="same 6 values"):
        correlated.draw(7)


def test_sums_of_the_noise_are_smaller_and_white_noise_is_found_out() -> None:
    correlated, white = ftrl.CorrelatedNoise(noise(1), 16, 64), noise(2)
    sums = sum(correlated.draw(20_000) for _ in range(64))
    plain = sum(white.standard(20_000) for _ in range(64))
    full = ftrl.matrix(ftrl.optimised(16, 64), 64)
    expected = np.linalg.norm(np.ones(64) @ np.linalg.inv(full))
    assert abs(np.std(sums) / expected - 1) < 0.03
    assert np.std(plain) > 1.5 * expected


def test_places_are_even_and_a_units_own() -> None:
    entropy = SeededEntropy(4)
    found = ftrl.groups(4000, 8, lambda most: below(entropy, most))
    assert stats.chisquare(np.bincount(found, minlength=8)).pvalue > 1e-5


def test_a_run_uses_each_unit_once_a_period_and_is_charged_by_uses(tmp_path: Path) -> None:
    net, seen = model(), []
    with project_at(tmp_path / "p").training(**FTRL) as run:
        private = training.private(net, LOSS, optimizer=sgd(net), run=run)
        for batch in private.batches(data()):
            seen.append(batch.sample.images)
            private.step(batch)
    for start in (0, 10):
        assert sorted(np.concatenate(seen[start : start + 10]).tolist()) == list(range(COUNT))
    assert all(np.array_equal(seen[i], seen[i + 10]) for i in range(10))
    assert run.planned.plan.event == Repeated(Gaussian("1.5"), 2)


def test_it_goes_on_from_its_last_step_and_from_no_other(tmp_path: Path) -> None:
    """Stopped and taken up, the noise is as if it had not stopped: C w is white."""
    project = project_at(tmp_path / "p")
    net, path = model(), tmp_path / "c.safetensors"
    asked = FTRL | {"rate": "0.1"}
    with project.training(**asked, checkpoint=path) as run:
        private = training.private(net, LOSS, optimizer=sgd(net), run=run)
        for batch in private.batches(data()):
            private.step(batch)
            if batch.number == 6:
                private.save()
                break
        past = private._fixed.noise.state()
        run.pause()
    with project.training(**asked, checkpoint=path, resume=True) as run:
        private = training.private(net, LOSS, optimizer=sgd(net), run=run)
        again = private._fixed.noise.state()
        assert all(torch.equal(again[name], value) for name, value in past.items())
        private.step(next(private.batches(data())))
        run.pause()
    with (
        project.training(**asked, checkpoint=path, resume=True) as run,
        pytest.raises(InvalidRequest, match="7 steps have begun, and the checkpoint knows 6"),
    ):
        training.private(net, LOSS, optimizer=sgd(net), run=run)
