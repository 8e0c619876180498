"""What a plan may be for: purposes, their end, their data, who asks, and refusals that tell nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core import purposes
from sfumato.core.errors import InvalidRequest, LedgerTampered, PolicyError, PolicyRefused
from sfumato.core.event import PureDP
from sfumato.core.gate import Gate, Plan
from sfumato.core.identity import Actor
from sfumato.core.ledger import Ledger
from sfumato.core.policy import ACTIONS, Policy
from sfumato.core.policy import RIGHTS as PERSONAL
from sfumato.core.project import Project
from sfumato.core.roles import RIGHTS, ROLES
from sfumato.core.verify import verify

POLICY = """
[project]
name = "clinic"
[purposes.care]
lawful_basis = "contract"
actions = ["redact", "query", "export"]
[purposes.research]
lawful_basis = "consent"
actions = ["query", "train", "export"]
[purposes.planning]
lawful_basis = "public task"
actions = ["query"]
compatible_with = ["care"]
roles = ["owner", "analyst"]
[purposes.old]
actions = ["query"]
expires = 2020-01-31
[datasets.scans]
purposes = ["care", "research"]
population = "patients"
[datasets.beds]
purposes = ["planning"]
[datasets.raw]
[populations.patients]
unit = "patient"
epsilon = 1
"""
OWNER = Actor("uid:1", "owner")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def plan(**changes: object) -> Plan:
    values: dict = {
        "action": "query",
        "mechanism": "count",
        "guarantee": "tested",
        "statement": "a test",
        "purpose": "care",
        "datasets": (("scans", "v1"),),
    }
    return Plan(**(values | changes))


def check(wanted: Plan, actor: Actor = OWNER, at: datetime = NOW, source: str = POLICY) -> None:
    purposes.check(Policy.parse(source), wanted, actor, at)


def test_what_the_data_was_given_for_passes() -> None:
    check(plan())
    check(plan(action="export"))
    check(plan(purpose="planning", datasets=(("beds", "v1"),)))


def test_reuse_passes_only_where_the_new_purpose_names_the_first() -> None:
    check(plan(purpose="planning"))
    with pytest.raises(PolicyRefused, match=r"purposes\.care\.compatible_with, now: none") as caught:
        check(plan(datasets=(("beds", "v1"),)))  # not the other way round
    assert caught.value.rule == "datasets.beds.purposes"


@pytest.mark.parametrize(
    ("change", "rule", "says"),
    [
        ({"purpose": "cares"}, "purposes", "Did you mean 'care'"),
        ({"action": "train"}, "purposes.care.actions", "it allows: redact, query, export"),
        ({"purpose": "old", "datasets": ()}, "purposes.old.expires", "ended with 2020-01-31"),
        ({"datasets": (("raw", "v1"),)}, "datasets.raw.purposes", "given for: nothing yet"),
        ({"datasets": (("scans", "v1"), ("beds", "v1"))}, "datasets.beds.purposes", "given for: planning"),
        ({"datasets": (("other", "v1"),)}, "datasets", "does not say what the dataset 'other'"),
    ],
)
def test_a_refusal_names_its_rule(change: dict, rule: str, says: str) -> None:
    with pytest.raises(PolicyRefused, match=says) as caught:
        check(plan(**change))
    assert caught.value.rule == rule
    assert caught.value.exit_code == 3
    assert rule in str(caught.value) or rule in ("purposes", "datasets")


def test_the_budget_charged_is_that_of_the_people_in_the_data() -> None:
    proven = {"guarantee": "proven", "event": PureDP("0.1"), "share": "all"}
    check(plan(**proven, population="patients"))
    with pytest.raises(PolicyRefused, match=r"datasets\.scans\.population"):
        check(plan(**proven, population="staff"))


def test_without_purposes_the_budget_is_still_that_of_the_people() -> None:
    source = POLICY.replace("[purposes.", "[populations.staff]\nunit = 'person'\nepsilon = 1\n[purposes.", 1)
    bare = "\n".join(
        part
        for part in source.replace('purposes = ["care", "research"]', "")
        .replace('purposes = ["planning"]', "")
        .replace("\n[", "\n\0[")
        .split("\0")
        if not part.startswith("[purposes")
    )
    proven = {"guarantee": "proven", "event": PureDP("0.1"), "share": "all"}
    check(plan(**proven, population="patients"), source=bare)
    check(plan(**proven, population="staff", datasets=(("other", "v1"),)), source=bare)
    with pytest.raises(PolicyRefused, match=r"datasets\.scans\.population"):
        check(plan(**proven, population="staff"), source=bare)


#: What releases something; a person's right to be erased passes whatever the purposes say.
RELEASES = tuple(action for action in ACTIONS if action not in PERSONAL)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("purpose", ["care", "planning", "research"])
def test_every_role_action_and_purpose(role: str, action: str, purpose: str) -> None:
    policy = Policy.parse(POLICY)
    rules = policy.purposes[purpose]
    by_purpose = action in rules.actions and (not rules.roles or role in rules.roles)
    expected = role in RIGHTS[action][0] and (by_purpose or action in PERSONAL)
    wanted = plan(action=action, purpose=purpose, datasets=())
    if expected:
        check(wanted, Actor("uid:1", role))  # type: ignore[arg-type]
    else:
        with pytest.raises(PolicyRefused):
            check(wanted, Actor("uid:1", role))  # type: ignore[arg-type]


def test_an_unknown_action_is_the_owners_alone() -> None:
    bare = '[project]\nname = "x"'
    for action in ("melt", *(set(RIGHTS) - set(ACTIONS))):
        check(plan(action=action), OWNER, source=bare)
        for role in (*ROLES[1:], None):
            with pytest.raises(PolicyRefused, match=f"'{action}' is none of the actions"):
                check(plan(action=action), Actor("uid:1", role), source=bare)


# Time


@pytest.mark.parametrize(("day", "passes"), [("2020-01-31T23:59:59", True), ("2020-02-01T00:00:00", False)])
def test_the_last_day_of_a_purpose_is_whole(day: str, passes: bool) -> None:
    at = datetime.fromisoformat(day).replace(tzinfo=UTC)
    wanted = plan(purpose="old", datasets=())
    if passes:
        check(wanted, at=at)
    else:
        with pytest.raises(PolicyRefused, match="ended"):
            check(wanted, at=at)


def test_a_clock_set_back_does_not_bring_a_purpose_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(":memory:")
    with ledger.book.writing():
        ledger.book.append("refusal", "", None, {"at": "2026-05-01T00:00:00.000000+00:00"})

    class Past(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2020, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(purposes, "datetime", Past)
    assert purposes.clock(None).year == 2020
    assert purposes.clock(ledger) == datetime(2026, 5, 1, tzinfo=UTC)
    ledger.open_population("patients", epsilon=1, delta=0, unit="patient")
    gate = Gate(Policy.parse(POLICY), ledger)
    with pytest.raises(PolicyRefused, match="ended with 2020-01-31"):
        gate.check(plan(purpose="old", datasets=()))


# Scope of a token


def test_a_token_does_what_it_is_limited_to() -> None:
    scoped = Actor("token:1", "analyst", "t", purposes=("care",), actions=("query",))
    check(plan(), scoped)
    for change, limit in (({"purpose": "planning"}, "purposes"), ({"action": "redact"}, "actions")):
        with pytest.raises(PolicyRefused, match=f"limited to the {limit}"):
            check(plan(**change), scoped)
    with pytest.raises(PolicyRefused, match="limited to the purposes none"):
        check(plan(), Actor("token:1", "analyst", purposes=()))
    ended = Actor("token:1", "analyst", expires=NOW)
    with pytest.raises(PolicyRefused, match="the token ended"):
        check(plan(), ended)
    check(plan(), ended, at=NOW - timedelta(seconds=1))


def test_a_clock_set_back_does_not_bring_a_token_back() -> None:
    ledger = Ledger(":memory:")
    with ledger.book.writing():
        ledger.book.append("refusal", "", None, {"at": "2999-01-01T00:00:00.000000+00:00"})
    ended = Actor("token:1", "analyst", expires=datetime(2998, 1, 1, tzinfo=UTC))
    with pytest.raises(PolicyRefused, match="the token ended"):
        Gate(Policy.parse(POLICY), ledger, actor=ended).check(plan())
    Gate(Policy.parse(POLICY), Ledger(":memory:"), actor=ended).check(plan())


# Refusals


@pytest.fixture
def project(tmp_path: Path) -> Project:
    Project.init(tmp_path / "p").ledger.close()
    (tmp_path / "p" / "sfumato.toml").write_text(POLICY)
    return Project(tmp_path / "p")


def test_a_refusal_is_recorded_without_what_was_typed(project: Project) -> None:
    gate = project.gate()
    for change in ({"purpose": "Ann Smith's scan"}, {"action": "train"}, {"action": "Bob"}):
        with pytest.raises(PolicyRefused):
            gate.open(plan(**change))
    rows = [row.body for row in project.ledger.entries() if row.kind == "refusal"]
    assert [row["rule"] for row in rows] == ["purposes", "purposes.care.actions", "purposes.care.actions"]
    assert rows[0]["purpose"] == "not declared"
    assert not any(word in str(rows) for word in ("Ann", "Bob", "by"))
    assert verify(project.ledger).releases == 0


def refusals(planner: Callable[[list[str]], list[Plan]], people: list[str], gate: Gate) -> list[str]:
    said = []
    for wanted in planner(people):
        with pytest.raises(PolicyRefused) as caught:
            gate.open(wanted)
        said.append(str(caught.value))
    return said


def test_refusals_are_byte_identical_whatever_the_data(project: Project) -> None:
    gate = project.gate()

    def planner(people: list[str]) -> list[Plan]:
        return [
            plan(purpose=purpose, action=action, datasets=((data, f"hash of {len(people)}"),))
            for purpose, action, data in itertools.product(
                ("care", "research", "planning", "old", "none"), RELEASES, ("scans", "beds", "raw", "other")
            )
            if not (purpose == "care" and data == "scans" and action != "train")
            and not (purpose == "planning" and action == "query" and data in ("scans", "beds"))
        ]

    def telling(people: list[str]) -> list[Plan]:
        return [plan(purpose=f"care of {len(people)}")]

    crowd = [f"person {number}" for number in range(9)]
    assert refusals(planner, crowd, gate) == refusals(planner, crowd[:-1], gate)
    assert refusals(telling, crowd, gate) != refusals(telling, crowd[:-1], gate)  # the check would see it


def test_versions_stay_off_a_proven_receipt() -> None:
    """A hash of the content beside a noisy answer would let guesses at the content be tested."""
    proven = plan(guarantee="proven", event=PureDP("0.1"), population="patients", share="all")
    assert proven.to_data()["datasets"] == [{"name": "scans"}]
    assert plan().to_data()["datasets"] == [{"name": "scans", "version": "v1"}]
    assert "datasets" not in plan(datasets=()).to_data()


@pytest.mark.parametrize("wrong", [("scans", "v1"), (("scans",),), (("scans", 1),), (["scans", "v1"],)])
def test_datasets_are_named_with_their_version(wrong: object) -> None:
    with pytest.raises(InvalidRequest, match="pairs of name and version"):
        plan(datasets=wrong)


def test_a_gate_of_a_policy_with_roles_must_know_who_acts() -> None:
    policy = Policy.parse(POLICY + '[roles]\nowner = ["maria"]')
    with pytest.raises(InvalidRequest, match="who acts"):
        Gate(policy, Ledger(":memory:"))


# The policy


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"consent"', '"consnet"', "must be one of consent"),
        ('"contract"', '"other: consent (LGPD art. 7)"', 'write "consent"'),
        ('"contract"', '"other: explicit CONSENT"', 'write "consent"'),
        ('"contract"', '"other:  "', "says no basis"),
        ("2020-01-31", '"2020-01-31"', "without quotes"),
        ("2020-01-31", "2020-01-31T10:00:00", "without quotes"),
        ("2020-01-31", "20200131", "without quotes"),
        ('compatible_with = ["care"]', 'compatible_with = ["car"]', "did you mean 'care'"),
        ('compatible_with = ["care"]', 'compatible_with = ["research"]', "agreed to that and nothing else"),
        ('purposes = ["planning"]', 'purposes = ["plannin"]', "did you mean 'planning'"),
        ('population = "patients"', 'population = "patient"', "did you mean 'patients'"),
        ('roles = ["owner", "analyst"]', 'roles = ["owner", "analist"]', "'analyst'"),
        ('actions = ["query"]\nexp', 'actions = ["qeury"]\nexp', "'query'"),
        ("[datasets.raw]", "[roles]\nowner = []", "at least one owner"),
        ("[datasets.raw]", '[roles]\ncurator = ["a"]', "'roles.owner' is missing"),
        ("[datasets.raw]", '[roles]\nowner = ["a"]\ncurator = ["a"]', "'a' has more than one role"),
        ("[datasets.raw]", '[roles]\nowner = ["a", "a"]', "'a' has more than one role"),
        ("[datasets.raw]", '[roles]\nowner = ["token:x"]', "never an owner"),
        ("[datasets.raw]", '[roles]\nowner = ["UID:1000"]', '"uid:1000" or "token:NAME"'),
        ("[datasets.raw]", '[roles]\nowner = ["uid:01000"]', '"uid:1000" or "token:NAME"'),
        ("[datasets.raw]", '[roles]\nowner = ["uid:maria"]', '"uid:1000" or "token:NAME"'),
        ("[datasets.raw]", '[roles]\nowner = ["a"]\nauditor = ["Token:x"]', '"uid:1000" or "token:NAME"'),
        ("[datasets.raw]", '[roles]\nowner = ["a"]\nauditor = ["token:"]', '"uid:1000" or "token:NAME"'),
        ("[datasets.raw]", '[roles]\nowner = ["mari\u200ba"]', "cannot be printed"),
        ("[datasets.raw]", '[purposes." "]', "begins or ends with a space"),
        ("[datasets.raw]", '[purposes."care "]', "begins or ends with a space"),
        ("[datasets.raw]", '[purposes."ca\u202ere"]', "cannot be printed"),
        ("[datasets.raw]", "[retention]\ndays = true", "a whole number, got True"),
        ("[datasets.raw]", "[retention.datasets]\nscans = true", "a whole number, got True"),
        ("[datasets.raw]", '[retention]\ndays = "30"', "a whole number, got 30"),
        ("[datasets.raw]", '[roles]\nowner = ["a"]\nowners = ["b"]', "did you mean 'owner'"),
    ],
)
def test_a_wrong_rule_stops_the_policy(old: str, new: str, says: str) -> None:
    assert old in POLICY
    with pytest.raises(PolicyError, match=says):
        Policy.parse(POLICY.replace(old, new, 1))


def test_another_law_may_do_without_consent() -> None:
    Policy.parse(POLICY.replace('"contract"', '"other: waiver of consent (45 CFR 46.116)"'))


def test_rules_survive_being_written() -> None:
    policy = Policy.parse(POLICY + '[roles]\nowner = ["maria", "uid:0"]')
    assert Policy.parse(policy.to_toml()) == policy
    assert policy.purposes["old"].expires == date(2020, 1, 31)


VALUES = st.one_of(
    st.text(max_size=8),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.dates(),
    st.lists(st.one_of(st.text(max_size=5), st.integers(), st.sampled_from(["care", "owner"])), max_size=3),
)
KEYS = st.sampled_from(
    ["lawful_basis", "actions", "expires", "roles", "compatible_with", "purposes", "population", "owner", "x"]
)


@settings(max_examples=300, deadline=None)
@given(
    section=st.sampled_from(["purposes.care", "datasets.scans", "roles", "purposes", "datasets"]),
    body=st.dictionaries(KEYS, VALUES, max_size=4),
    noise=st.text(max_size=6),
)
def test_any_policy_parses_or_is_refused_as_one(section: str, body: dict, noise: str) -> None:
    import tomli_w

    nested: dict = body
    for part in reversed(section.split(".")):
        nested = {part: nested}
    try:
        policy = Policy.parse(tomli_w.dumps({"project": {"name": "x"}, **nested}) + noise)
    except PolicyError:
        return
    assert policy.roles is None or policy.roles.owner
    for purpose in policy.purposes.values():
        assert set(purpose.actions) <= set(ACTIONS)
        assert set(purpose.roles) <= set(ROLES)
    assert Policy.parse(policy.to_toml()) == policy


def test_the_basis_of_the_day_stays_in_the_ledger(tmp_path: Path) -> None:
    project = Project.init(tmp_path / "p")
    file = project.root / "sfumato.toml"
    for basis in ("contract", "consent"):
        file.write_text(
            f'[project]\nname = "x"\n[purposes.care]\nlawful_basis = "{basis}"\nactions = ["redact"]\n'
        )
        if basis == "contract":
            plan = Plan(action="redact", mechanism="m", guarantee="heuristic", statement="s", purpose="care")
            with Project(project.root).gate().open(plan) as permit:
                permit.settle()
    rows = list(Project(project.root).ledger.book.all(kind="reserve"))
    assert [row.body["plan"]["lawful_basis"] for row in rows] == ["contract"]
    verify(Project(project.root).ledger)


def test_an_anchor_of_the_policy_is_not_made_again_in_silence(tmp_path: Path) -> None:
    project = Project.init(tmp_path / "p")
    file = project.root / "sfumato.toml"
    file.write_text(f'[project]\nname = "x"\n[ledger]\nanchor = "{tmp_path / "heads"}"\n')
    Project(project.root).ledger.close()
    Project(project.root).ledger.close()
    kept = (tmp_path / "heads").read_bytes()
    (tmp_path / "heads").unlink()
    for _ in range(2):
        with pytest.raises(LedgerTampered, match="is gone or empty"):
            Project(project.root).ledger  # noqa: B018
    assert not (tmp_path / "heads").exists()
    (tmp_path / "heads").write_bytes(kept)
    Project(project.root).ledger.close()
