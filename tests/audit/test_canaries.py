"""Canaries: coins, scores, guesses, and how many to make."""

from __future__ import annotations

import numpy as np
import pytest
from dpsgd import Mechanism
from scipy import stats

from sfumato.audit.canaries import accuracy, best_number, coins, guess, play
from sfumato.core.entropy import SeededEntropy
from sfumato.core.errors import InvalidRequest


def test_coins_are_fair_and_fresh() -> None:
    first, second = coins(4000), coins(4000)
    assert stats.binomtest(int(first.sum()), 4000).pvalue > 1e-6
    assert stats.binomtest(int((first ^ second).sum()), 4000).pvalue > 1e-6
    assert len(coins(13)) == 13


def test_the_step_gets_the_members_and_its_sums_are_kept() -> None:
    asked = []

    def step(members: np.ndarray) -> np.ndarray:
        asked.append(members)
        return np.bincount(members, minlength=40) * 2.0

    game = play(step, 40, 3, entropy=SeededEntropy(3))
    assert len(asked) == 3
    assert all((members == np.flatnonzero(game.included)).all() for members in asked)
    assert (game.sums == 2.0 * game.included).all()
    assert guess(game.scores(1.0, 0.5), game.included, 20).right == 20


@pytest.mark.parametrize(
    ("step", "canaries", "steps", "said"),
    [
        (lambda members: np.zeros(40), 31, 1, "32 canaries"),
        (lambda members: np.zeros(40), 40, 0, "one step"),
        (lambda members: np.zeros(39), 40, 1, "one number per canary"),
        (lambda members: np.full(40, np.nan), 40, 1, "NaN"),
    ],
)
def test_what_cannot_be_played_is_refused(step, canaries, steps, said) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidRequest, match=said):
        play(step, canaries, steps)


@pytest.mark.parametrize(("sigma", "rate"), [(0.3, 0.01), (5.0, 1.0), (1e-3, 0.5)])
def test_scores_are_numbers_whatever_comes(sigma: float, rate: float) -> None:
    def step(members: np.ndarray) -> np.ndarray:
        wild = np.linspace(-1e3, 1e3, 64)
        wild[:2] = [-np.inf, np.inf]
        return wild

    game = play(step, 64, 5)
    assert not np.isnan(game.scores(sigma, rate)).any()


def test_the_claimed_likelihood_beats_the_plain_sum_where_noise_is_low() -> None:
    """Sampling makes few steps tell much: the likelihood ratio knows which, the sum does not."""
    right = {"ratio": 0, "sum": 0}
    for seed in range(5):
        mechanism = Mechanism(0.6, 0.02, 2000, seed)
        game = play(mechanism.step, 2000, 100, entropy=SeededEntropy(seed))
        right["ratio"] += guess(game.scores(0.6, 0.02), game.included, 400).right
        right["sum"] += guess(game.sums.sum(axis=0), game.included, 400).right
    assert right["ratio"] > right["sum"] + 30


def test_guesses_take_the_extremes() -> None:
    scores = np.arange(10.0)
    included = scores >= 5
    assert guess(scores, included, 4).right == 4
    assert guess(scores, ~included, 10).right == 0
    assert guess(scores, included, 5).made == 4  # an even number
    for wrong in (0, 1, 12):
        with pytest.raises(InvalidRequest):
            guess(scores, included, wrong)


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("part", [0.02, 0.3, 1.0])
def test_the_expected_accuracy_is_what_normal_scores_give(shift: float, part: float) -> None:
    rng = np.random.default_rng(9)
    inside = rng.random(200_000) < 0.5
    seen = guess(rng.standard_normal(200_000) + shift * inside, inside, int(200_000 * part))
    assert seen.right / seen.made == pytest.approx(accuracy(part, shift), abs=0.03 if part < 0.1 else 0.01)


def test_the_number_of_guesses_comes_from_the_claim_alone() -> None:
    assert best_number(5000, 0.4, delta=1e-5) == best_number(5000, 0.4, delta=1e-5)
    assert best_number(32, 0.1, delta=1e-5) <= 32
    weak, strong = best_number(5000, 0.5, delta=1e-5), best_number(5000, 4.0, delta=1e-5)
    assert weak < strong  # the weaker the signal, the more only the extremes say anything
