"""The contract of every attack in the catalogue: a new file is tested before its author writes a test."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from sfumato.audit.attacks import CATALOGUE, Attack, Observed
from sfumato.core.errors import InvalidRequest, UnknownName

NAMES = CATALOGUE.names
EXAMPLES, SHADOWS = 400, 16


def observed(leak: float, seed: int, *, coins: bool = True, spread: float = 1.0) -> Observed:
    """Scores of a model, and of shadows trained alike, that know members better by `leak` deviations.

    Examples differ in how hard they are, which one threshold for all cannot see.
    """
    rng = np.random.default_rng(seed)
    hard = spread * rng.standard_normal(EXAMPLES)
    member = rng.random(EXAMPLES) < 0.5
    shadow_member = rng.random((SHADOWS, EXAMPLES)) < 0.5
    shadow = hard + rng.standard_normal((SHADOWS, EXAMPLES)) + leak * shadow_member
    return Observed(
        hard + rng.standard_normal(EXAMPLES) + leak * member, member, shadow, shadow_member, coins=coins
    )


def test_the_catalogue_is_not_empty_and_says_what_it_holds() -> None:
    assert {"membership", "lira", "memorisation"} <= set(NAMES)
    for name in NAMES:
        plugin = CATALOGUE.load(name)
        assert plugin.summary
        assert not plugin.missing
        attack = plugin.build()
        assert isinstance(attack, Attack)
        assert attack.name == name
    with pytest.raises(UnknownName, match="membership"):
        CATALOGUE.load("membrship")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("coins", [True, False])
def test_a_model_that_leaks_nothing_is_not_accused(name: str, coins: bool) -> None:
    """Over 60 models without a leak: bounds above 0, and small p-values, no more often than asked."""
    attack = CATALOGUE.build(name)
    found = [attack.run(observed(0.0, seed, coins=coins)) for seed in range(60)]
    for count in (sum(one.epsilon > 0 for one in found), sum(one.p < 0.05 for one in found)):
        assert stats.binom.sf(count - 1, 60, 0.05) > 1e-4, count
    assert np.mean([one.auc for one in found]) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("coins", [True, False])
def test_a_model_that_leaks_is_found(name: str, coins: bool) -> None:
    found = CATALOGUE.build(name).run(observed(4.0, 1, coins=coins))
    assert found.auc > 0.95
    assert found.epsilon > 1
    assert found.p < 1e-6
    assert bool(found.assumes) != coins
    for rate, true, low, high in found.rates:
        assert rate < true
        assert low <= true <= high


@pytest.mark.parametrize("name", NAMES)
def test_the_same_scores_give_the_same_result_and_it_goes_into_json(name: str) -> None:
    first, second = (CATALOGUE.build(name).run(observed(1.0, 2), delta=1e-5) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first.to_data(), allow_nan=False))["attack"] == name


@pytest.mark.parametrize("name", NAMES)
def test_equal_and_infinite_scores_are_judged(name: str) -> None:
    seen = observed(0.0, 3)
    flat = Observed(np.zeros(EXAMPLES), seen.member, np.zeros((SHADOWS, EXAMPLES)), seen.shadow_member)
    found = CATALOGUE.build(name).run(flat)
    assert found.auc == pytest.approx(0.5)
    assert found.p > 0.4
    assert math.isfinite(found.epsilon)


@pytest.mark.parametrize("name", NAMES)
def test_a_smaller_delta_and_more_confidence_never_give_less_and_more(name: str) -> None:
    attack, seen = CATALOGUE.build(name), observed(3.0, 4)
    plain = attack.run(seen).epsilon
    assert attack.run(seen, delta=1e-3).epsilon <= plain + 1e-5
    assert attack.run(seen, confidence=0.999).epsilon <= plain + 1e-5


MEMBER = np.arange(40) % 2 == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((np.zeros(40), MEMBER[:39]), "scores and member"),
        ((np.zeros(40), MEMBER.astype(int)), "bool"),
        ((np.full(40, np.nan), MEMBER), "40 of 40 scores are NaN"),
        ((np.zeros(40), np.arange(40) < 3), "10 members"),
        ((np.zeros(40), MEMBER, np.zeros((3, 40))), "come together"),
        ((np.zeros(40), MEMBER, np.zeros((3, 39)), np.zeros((3, 39), bool)), "shadow scores"),
        ((np.zeros(40), MEMBER, np.full((3, 40), np.nan), np.zeros((3, 40), bool)), "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidRequest, match=said):
        Observed(*arguments)
