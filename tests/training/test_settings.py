"""What may be asked for, and what follows from it."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest

from sfumato.core.errors import InvalidRequest
from sfumato.training.settings import TrainingSettings

GOOD = {"epsilon": 3, "delta": "1e-5", "expected_batch": 50, "public_size": 1000, "steps": 10}


def test_rate_batch_and_size_follow_from_two_of_them_exactly() -> None:
    asked = TrainingSettings(**GOOD)
    assert asked.rate == Fraction(1, 20)
    assert asked.normaliser == 50
    assert asked.epochs == Fraction(1, 2)
    by_rate = TrainingSettings(epsilon=3, delta="1e-5", rate="1/3", public_size=100, epochs=2)
    assert (by_rate.expected_batch, by_rate.steps) == (Fraction(100, 3), 6)
    assert TrainingSettings(epsilon=1, delta="1e-5", rate="0.1", expected_batch=7, steps=1).normaliser == 7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epsilon": 0}, "not both"),
        ({"noise_multiplier": 1}, "not both"),
        ({"epsilon": -1}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"delta": 1}, "delta"),
        ({"delta": -1}, "delta"),
        ({"steps": 0}, "steps or epochs"),
        ({"epochs": 3}, "steps or epochs"),
        ({"steps": 1.5}, "steps"),
        ({"steps": True}, "steps"),
        ({"steps": -3}, "steps"),
        ({"public_size": 0}, "public numbers"),
        ({"rate": "0.06"}, "public numbers"),
        ({"expected_batch": 2000}, "at most public_size"),
        ({"public_size": 2.0}, "public_size"),
        ({"clip": 0}, "clip"),
        ({"clip": float("inf")}, "clip"),
        ({"clip": float("nan")}, "clip"),
        ({"clipping": "flt"}, "did you mean 'flat'"),
        ({"mechanism": "sgd"}, "mechanism"),
        ({"precision": "float16"}, "precision"),
        ({"views": 0}, "views"),
        ({"physical_batch": 0}, "physical_batch"),
        ({"count_ahead": 0}, "count_ahead"),
        ({"bands": 2}, "dp-ftrl"),
        ({"mechanism": "dp-ftrl", "bands": 21}, "at most 20"),
    ],
)
def test_what_does_not_add_up_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        TrainingSettings(**(GOOD | change))  # type: ignore[arg-type]


def test_settings_are_frozen_and_can_be_replaced() -> None:
    asked = TrainingSettings(**GOOD)
    with pytest.raises(dataclasses.FrozenInstanceError):
        asked.steps = 3  # type: ignore[misc]
    assert dataclasses.replace(asked, epochs=0, clip=2.0).parameters()["clip"] == "2.0"


def test_the_parameters_are_plain_and_exact() -> None:
    told = TrainingSettings(**(GOOD | {"expected_batch": "100/3"}), clip=0.1).parameters()
    assert told["rate"] == "1/30"
    assert told["clip"] == "0.1"
    assert "insecure_debug" not in told
    assert TrainingSettings(**GOOD, insecure_debug=True).parameters()["insecure_debug"] is True


def test_rounds_of_a_fixed_order_are_uses_of_a_unit() -> None:
    asked = TrainingSettings(**GOOD, mechanism="dp-ftrl", bands=4)
    assert asked.period == 20
    assert [asked.rounds(steps) for steps in (0, 1, 20, 21, 40)] == [0, 1, 1, 2, 2]
    assert TrainingSettings(**GOOD).rounds(7) == 7
