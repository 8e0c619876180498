"""What each attack adds: LiRA's likelihoods, exposure, Clopper and Pearson's bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sfumato.audit.attacks import CATALOGUE, Observed
from sfumato.audit.attacks._scores import area, clopper_pearson
from sfumato.audit.attacks.memorisation import counterfactual, exposure
from sfumato.core.errors import InvalidRequest


def hard_examples(seed: int, leak: float = 2.0, shadows: int = 16) -> Observed:
    rng = np.random.default_rng(seed)
    hard = 5 * rng.standard_normal(600)
    member = rng.random(600) < 0.5
    shadow_member = rng.random((shadows, 600)) < 0.5
    shadow = hard + rng.standard_normal((shadows, 600)) + leak * shadow_member
    return Observed(
        hard + rng.standard_normal(600) + leak * member, member, shadow, shadow_member, coins=True
    )


@pytest.mark.parametrize("kind", ["online", "offline"])
def test_lira_sees_what_one_threshold_cannot(kind: str) -> None:
    seen = hard_examples(1)
    plain = CATALOGUE.build("membership").run(seen)
    lira = CATALOGUE.build("lira", kind=kind).run(seen)
    assert plain.auc < 0.65
    assert lira.auc > 0.85
    assert lira.epsilon > plain.epsilon + 0.5


def test_with_many_shadows_each_example_has_a_spread_of_its_own() -> None:
    rng = np.random.default_rng(2)
    spread = np.where(np.arange(300) % 2 == 0, 0.1, 5.0)
    member = rng.random(300) < 0.5
    shadow_member = rng.random((128, 300)) < 0.5
    shadow = spread * rng.standard_normal((128, 300)) + shadow_member
    seen = Observed(spread * rng.standard_normal(300) + member, member, shadow, shadow_member)
    own = CATALOGUE.build("lira").run(seen).auc
    shared = CATALOGUE.build("lira", own_spread=1000).run(seen).auc
    assert own > shared + 0.05


def test_lira_asks_for_shadows() -> None:
    bare = Observed(np.arange(40.0), np.arange(40) % 2 == 0)
    with pytest.raises(InvalidRequest, match="shadow"):
        CATALOGUE.build("lira").run(bare)
    always = Observed(bare.scores, bare.member, np.zeros((3, 40)), np.ones((3, 40), bool))
    with pytest.raises(InvalidRequest, match="40 of 40 examples are in all shadows"):
        CATALOGUE.build("lira").run(always)
    with pytest.raises(InvalidRequest, match="40 of 40 examples are in all shadows and"):
        CATALOGUE.build("lira", kind="offline").run(always)
    never = Observed(bare.scores, bare.member, np.zeros((3, 40)), np.zeros((3, 40), bool))
    assert CATALOGUE.build("lira", kind="offline").run(never).auc > 0.4
    with pytest.raises(InvalidRequest, match="online or offline"):
        CATALOGUE.build("lira", kind="onlin")


def test_one_shadow_on_each_side_is_enough_to_run() -> None:
    seen = hard_examples(3, shadows=1)
    assert seen.shadow_scores is not None
    assert seen.shadow_member is not None
    both = np.concatenate([seen.shadow_member, ~seen.shadow_member])
    pair = Observed(seen.scores, seen.member, np.concatenate([seen.shadow_scores] * 2), both)
    assert 0.3 < CATALOGUE.build("lira").run(pair).auc < 1


def test_exposure_counts_ranks() -> None:
    others = np.arange(1023.0)
    assert exposure(np.array([2000.0]), others).tolist() == [10.0]
    assert exposure(np.array([-1.0]), others).tolist() == [0.0]
    assert exposure(np.array([1022.0]), others)[0] == 9.0  # a tie counts against


def test_memorisation_says_what_was_planted() -> None:
    rng = np.random.default_rng(5)
    member = np.arange(500) < 20
    scores = rng.standard_normal(500) + 6 * member
    shadow_member = rng.random((8, 500)) < 0.5
    shadow = rng.standard_normal((8, 500)) + 3 * shadow_member
    found = CATALOGUE.build("memorisation").run(Observed(scores, member, shadow, shadow_member))
    assert found.facts["exposure"] > 7
    assert found.facts["exposure"] <= found.facts["exposure_ceiling"] + 1e-9
    assert found.facts["memorised"] == pytest.approx(3, abs=0.8)
    blind = CATALOGUE.build("memorisation").run(Observed(rng.standard_normal(500), member))
    assert blind.facts["exposure"] < 3
    assert blind.p > 1e-4


def test_counterfactual_needs_both_sides() -> None:
    gains = counterfactual(np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[False, True], [True, True]]))
    assert gains[0] == 2.0
    assert math.isnan(gains[1])


@pytest.mark.parametrize(("count", "trials"), [(0, 10), (3, 10), (10, 10), (250, 1000)])
def test_clopper_pearson_is_scipys(count: int, trials: int) -> None:
    expected = stats.binomtest(count, trials).proportion_ci(confidence_level=0.95, method="exact")
    assert clopper_pearson(count, trials, 0.95) == pytest.approx((expected.low, expected.high))


def test_the_area_is_that_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(6)
    members, others = rng.integers(0, 9, 60) + 1.0, rng.integers(0, 9, 80) + 0.0
    expected = stats.mannwhitneyu(members, others, alternative="greater", method="asymptotic")
    auc, p = area(members, others)
    assert auc == pytest.approx(expected.statistic / (60 * 80))
    assert p == pytest.approx(expected.pvalue)
