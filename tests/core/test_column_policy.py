from __future__ import annotations

from fractions import Fraction

import pytest

from sfumato.core.errors import PolicyError, PolicyRefused
from sfumato.core.policy import Policy

HEAD = """
[project]
name = "city"
[populations.drivers]
unit = "vehicle"
epsilon = 1
[datasets.flow]
population = "drivers"
unit = "vehicle"
keep = ["speed", "hour", "day"]
table = "flow.parquet"
"""


def policy(text: str) -> Policy:
    return Policy.parse(HEAD + text)


def test_what_is_public_of_a_column_is_read_exactly() -> None:
    columns = (
        policy(
            """
        [datasets.flow.columns.speed]
        kind = "number"
        bounds = [-0.5, 130]
        step = 0.1
        [datasets.flow.columns.hour]
        range = [0, 23]
        [datasets.flow.columns.day]
        values = ["mon", "tue"]
        """
        )
        .datasets["flow"]
        .columns
    )
    assert columns["speed"].clamps == (Fraction(-1, 2), Fraction(130))
    assert columns["speed"].step == Fraction(1, 10)
    assert columns["hour"].public_values() == tuple(range(24))
    assert columns["hour"].clamps == (0, 23)
    assert columns["day"].public_values() == ("mon", "tue")
    assert columns["day"].clamps is None


def test_a_policy_with_columns_survives_writing() -> None:
    first = policy("[datasets.flow.columns.speed]\nbounds = [0, 130]\nstep = 0.5\n")
    again = Policy.parse(first.to_toml())
    assert again == first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bounds = [5, 5]", "lowest and the highest"),
        ("bounds = [5, 1]", "lowest and the highest"),
        ("bounds = [1, 2026-01-01]", "two numbers, two dates"),
        ("bounds = [1, inf]", "finite"),
        ("bounds = [nan, 1]", "finite"),
        ("bounds = [true, 1]", "number"),
        ("step = 0", "above 0"),
        ("values = []", "at least one"),
        ('values = ["a", "a"]', "twice"),
        ('values = ["a", 1]', "one kind"),
        ("values = [1, 2]\nrange = [1, 2]", "not both"),
        ("range = [3, 2]", "first and the last"),
        ('kind = "text"\nbounds = [0, 1]', "do not fit"),
        ('kind = "date"\nvalues = ["a"]', "do not fit"),
        ('kind = "colour"', "kind"),
        ("most = 3", "most"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        policy(f"[datasets.flow.columns.speed]\n{text}\n")


def test_a_column_outside_the_allow_list_is_refused() -> None:
    with pytest.raises(PolicyError, match="keep does not"):
        policy("[datasets.flow.columns.name]\nvalues = ['a']\n")


def test_true_and_one_are_different_values() -> None:
    with pytest.raises(PolicyError, match="one kind"):
        policy("[datasets.flow.columns.speed]\nvalues = [true, 1]\n")


def test_a_share_names_who_may_spend_it() -> None:
    from datetime import UTC, datetime

    from sfumato.core import purposes
    from sfumato.core.event import PureDP
    from sfumato.core.gate import Plan
    from sfumato.core.identity import Actor

    read = Policy.parse(
        """
        [project]
        name = "city"
        [populations.drivers]
        unit = "vehicle"
        epsilon = 1
        [populations.drivers.shares.jan]
        epsilon = 0.5
        users = ["jan", "token:nightly"]
        [populations.drivers.shares.all]
        epsilon = 0.5
        """
    )

    def ask(actor: Actor, share: str, also: tuple[tuple[str, str], ...] = ()) -> None:
        plan = Plan(
            action="query",
            mechanism="m",
            guarantee="proven",
            statement="s",
            event=PureDP("0.1"),
            population="drivers",
            share=share,
            also=also,
        )
        purposes.check(read, plan, actor, datetime.now(UTC))

    jan = Actor("uid:7", "analyst", names=("uid:7", "jan"))
    eva = Actor("uid:8", "analyst", names=("uid:8", "eva"))
    token = Actor("token:ab", "analyst", names=("token:nightly",))
    ask(jan, "jan")
    ask(token, "jan")
    ask(eva, "all")
    with pytest.raises(PolicyRefused, match="yours: all") as refusal:
        ask(eva, "jan")
    assert refusal.value.rule == "populations.drivers.shares.jan.users"
    with pytest.raises(PolicyRefused, match="for others"):
        ask(eva, "all", (("drivers#2026", "jan"),))
