"""The consent register: who agreed, who took it back, and that nothing forgets it."""

from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core import consent
from sfumato.core.anchor import FileAnchor
from sfumato.core.consent import Register
from sfumato.core.errors import InvalidRequest, LedgerRolledBack, LedgerTampered, PolicyRefused
from sfumato.core.gate import Plan
from sfumato.core.identity import Actor, Pseudonyms
from sfumato.core.project import Project

PSEUDONYMS = Pseudonyms(bytes(32))
POLICY = """
[project]
name = "clinic"
[purposes.research]
lawful_basis = "consent"
actions = ["query", "train", "export"]
[purposes.care]
lawful_basis = "contract"
actions = ["query"]
[datasets.scans]
purposes = ["research", "care"]
"""
TODAY = datetime.now(UTC).date()
PAST = TODAY - timedelta(days=30)


def register(path: Path | str = ":memory:", **more: object) -> Register:
    return Register(path, **({"pseudonym": PSEUDONYMS.subject} | more))  # type: ignore[arg-type]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    Project.init(tmp_path / "p").ledger.close()
    (tmp_path / "p" / "sfumato.toml").write_text(POLICY)
    return Project(tmp_path / "p")


def named(project: Project) -> Register:
    return project.consent.named(PSEUDONYMS.subject)


def plan(**changes: object) -> Plan:
    values: dict = {
        "action": "query",
        "mechanism": "count",
        "guarantee": "tested",
        "statement": "a test",
        "purpose": "research",
        "datasets": (("scans", "v1"),),
    }
    return Plan(**(values | changes))


def test_nobody_agrees_until_they_do() -> None:
    book = register()
    assert not book.given("Ann", "research")
    book.give("Ann", "research", source="form 7")
    assert book.given("Ann", "research")
    assert not book.given("Ann", "care")  # for one purpose and no other
    book.withdraw("Ann", "research")
    assert not book.given("Ann", "research")
    book.give("Ann", "research")
    assert book.given("Ann", "research")
    assert book.counts() == {"research": {"given": 1, "withdrawn": 0}}


def test_consent_stood_on_the_days_it_stood() -> None:
    book = register()
    book.give("Ann", "research", on=PAST)
    book.withdraw("Ann", "research", on=PAST + timedelta(days=5))
    days = [PAST - timedelta(days=1), PAST, PAST + timedelta(days=4), PAST + timedelta(days=5), None]
    assert [book.given("Ann", "research", day) for day in days] == [False, True, True, False, False]


def test_rows_leave_and_the_receipt_counts_them(project: Project) -> None:
    for name in ("Ann", "Bob", "Eve"):
        named(project).give(name, "research")
    named(project).withdraw("Bob", "research")
    decision = named(project).decide(["Ann", "Bob", "Eve", "Dan"], "research")
    assert decision.allowed == ("Ann", "Eve")
    assert decision.withdrawn == ("Bob", "Dan")
    with project.gate().open(plan(consent=decision.evidence)) as permit:
        receipt = permit.settle(facts=decision.facts())
    assert receipt.body["facts"]["consent"] == {
        "purpose": "research",
        "checked": True,
        "used": 2,
        "left_out": 2,
    }
    assert decision.facts(proven=True) == {"consent": {"purpose": "research", "checked": True}}


@pytest.mark.parametrize("action", ["query", "train", "export"])
def test_a_withdrawal_refuses_every_plan_made_before_it(project: Project, action: str) -> None:
    named(project).give("Ann", "research")
    made = plan(action=action, consent=named(project).require(["Ann"], "research"))
    project.gate().check(made)
    named(Project(project.root)).withdraw("Ann", "research")  # another process, say
    with pytest.raises(PolicyRefused, match="withdrawn after this plan was made") as caught:
        project.gate().open(made)
    assert caught.value.rule == "purposes.research.lawful_basis"
    with pytest.raises(PolicyRefused, match="not everyone in this data agrees"):
        named(project).require(["Ann"], "research")
    assert named(project).decide(["Ann"], "research").allowed == ()


def test_new_consent_leaves_plans_alone(project: Project) -> None:
    named(project).give("Ann", "research")
    made = plan(consent=named(project).require(["Ann"], "research"))
    named(project).give("Bob", "research")
    named(project).give("Bob", "care")
    named(project).withdraw("Bob", "care")
    project.gate().check(made)


@pytest.mark.parametrize("action", ["query", "train", "export"])
def test_a_purpose_that_rests_on_consent_needs_it_asked(project: Project, action: str) -> None:
    elsewhere = register().decide([], "research").evidence
    other = named(project).decide([], "care").evidence
    for evidence in (None, elsewhere, other):
        with pytest.raises(PolicyRefused, match="without asking the consent register"):
            project.gate().check(plan(action=action, consent=evidence))
    project.gate().check(plan(purpose="care"))  # a contract asks nobody


def test_a_refusal_tells_neither_whose_consent_is_missing_nor_how_many() -> None:
    book = register()
    book.give("Ann", "research")
    said = set()
    for people in (["Bob"], ["Ann", "Bob"], ["Bob", "Eve"], [*"abcdefgh"]):
        with pytest.raises(PolicyRefused) as caught:
            book.require(people, "research")
        said.add(str(caught.value))
    assert len(said) == 1


def test_no_name_enters_the_register(tmp_path: Path) -> None:
    book = register(tmp_path / "consent.db")
    book.give("Annabelle Lee", "research", source="form 1")
    (tmp_path / "in.csv").write_text(f"subject,purpose,given,withdrawn\nAnnabelle Lee,care,{PAST},\n")
    book.load(tmp_path / "in.csv")
    book.close()
    assert b"Annabelle" not in (tmp_path / "consent.db").read_bytes()
    with pytest.raises(InvalidRequest, match="keyed hash") as caught:
        Register(":memory:").give("Annabelle Lee", "research")
    assert "Annabelle" not in str(caught.value)
    keyed = Register(":memory:")
    keyed.give("ab" * 16, "research")
    assert keyed.allowed(["ab" * 16, "cd" * 16], "research") == (("ab" * 16,), ("cd" * 16,))


def test_a_person_may_see_what_is_recorded_of_them() -> None:
    book = register()
    book.give("Ann", "research", on=PAST, source="form 7")
    book.give("Bob", "research")
    assert book.history("Ann") == [
        {"purpose": "research", "kind": "given", "date": str(PAST), "source": "form 7"}
    ]


@pytest.mark.parametrize("role", ["analyst", "auditor", None])
def test_only_owners_and_curators_record_consent(role: str | None) -> None:
    book = register(actor=Actor("uid:5", role))  # type: ignore[arg-type]
    for act in (book.give, book.withdraw):
        with pytest.raises(PolicyRefused, match="'consent'"):
            act("Ann", "research")
    register(actor=Actor("uid:5", "curator")).give("Ann", "research")


# Days


def test_the_future_is_not_recorded() -> None:
    book = register()
    with pytest.raises(InvalidRequest, match="lies in the future"):
        book.give("Ann", "research", on=TODAY + timedelta(days=2))
    assert not book.counts()
    book.give("Ann", "research")  # the book goes on after a refusal
    assert book.given("Ann", "research")


def test_a_withdrawal_that_would_not_count_is_not_taken() -> None:
    book = register()
    book.give("Ann", "research")
    with pytest.raises(InvalidRequest, match="which would go on to count"):
        book.withdraw("Ann", "research", on=PAST)


def test_a_clock_set_back_keeps_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    book = register()
    book.give("Ann", "research")
    monkeypatch.setattr(consent, "_now", lambda: "2020-01-01T00:00:00.000000+00:00")
    book.withdraw("Ann", "research")
    assert not book.given("Ann", "research")
    times = [row.body["at"] for row in book.book.all()]
    assert times == sorted(times)


# Import


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("subject,purpose,given,withdrawn", *lines)) + "\n")
    return path


def test_import_and_again(tmp_path: Path) -> None:
    book = register()
    file = write(
        tmp_path / "in.csv", f"Ann,research,{PAST},", f"Bob,research,{PAST},{PAST}", f"Eve,care,,{PAST}"
    )
    assert book.load(file) == 4
    assert book.allowed(["Ann", "Bob"], "research") == (("Ann",), ("Bob",))
    assert book.load(file) == 0
    book.withdraw("Ann", "research")
    assert book.load(file) == 0
    assert not book.given("Ann", "research")  # an old file does not undo it


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f",research,{PAST},", "line 3 .* names no subject"),
        (f"Ann,reserch,{PAST},", "declared: care, research"),
        (f"Ann,,{PAST},", "line 3 .* names no declared purpose"),
        ("Ann,research,,", "has no date"),
        ("Ann,research,yesterday,", "line 3 .* under given .* is not a day"),
        ("Ann,research,2999-01-01,", "lies in the future"),
        ('Ann,"research', "does not read as a CSV"),
    ],
)
def test_a_bad_line_stops_the_whole_import(tmp_path: Path, line: str, says: str) -> None:
    book = register()
    file = write(tmp_path / "in.csv", f"Bob,research,{PAST},", line)
    with pytest.raises(InvalidRequest, match=says):
        book.load(file, purposes=["research", "care"])
    assert not book.counts()
    assert not book.given("Bob", "research")


def test_other_files_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("name,purpose\nAnn,x\n")
    with pytest.raises(InvalidRequest, match="lacks the columns given, subject, withdrawn"):
        register().load(tmp_path / "in.csv")
    (tmp_path / "in.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InvalidRequest, match="does not read"):
        register().load(tmp_path / "in.csv")


# Integrity


def test_an_edited_register_is_refused(tmp_path: Path) -> None:
    book = register(tmp_path / "consent.db")
    book.give("Ann", "research")
    book.withdraw("Ann", "research")
    book.close()
    with sqlite3.connect(tmp_path / "consent.db") as raw:
        raw.execute("DROP TRIGGER no_delete")
        raw.execute("DROP TRIGGER no_update")
        raw.execute("UPDATE entries SET kind = 'given' WHERE seq = 3")
    raw.close()
    with pytest.raises(LedgerTampered, match="row 3"):
        register(tmp_path / "consent.db")


def test_an_older_register_is_refused_and_a_lost_one_withholds(project: Project) -> None:
    path = project.root / ".sfumato" / "consent.db"
    named(project).give("Ann", "research")
    old = path.read_bytes()
    named(project).withdraw("Ann", "research")
    project.consent.close()
    path.write_bytes(old)
    with pytest.raises(LedgerRolledBack, match="Withdrawals may be missing"):
        Project(project.root).consent  # noqa: B018
    path.unlink()
    assert named(Project(project.root)).allowed(["Ann"], "research") == ((), ("Ann",))


def test_what_another_user_wrote_is_remembered_once_seen(tmp_path: Path) -> None:
    def mine(identity: str) -> FileAnchor:
        return FileAnchor(tmp_path / "mine" / identity)

    path = tmp_path / "consent.db"
    register(path, anchor=mine).close()
    register(path).give("Ann", "research")
    old = path.read_bytes()
    register(path).withdraw("Ann", "research")
    assert not register(path, anchor=mine).given("Ann", "research")
    path.write_bytes(old)
    with pytest.raises(LedgerRolledBack):
        register(path, anchor=mine)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["give", "withdraw"]), st.sampled_from("AB"), st.integers(0, 3)), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_the_register_agrees_with_a_plain_reading(events: list[tuple[str, str, int]]) -> None:
    book = register()
    newest: dict[str, tuple[date, bool]] = {}
    for kind, who, ago in events:
        day = TODAY - timedelta(days=ago)
        last, stands = newest.get(who, (date.min, False))
        wanted = kind == "give"
        if who in newest and day < last and stands != wanted:
            with pytest.raises(InvalidRequest):
                getattr(book, kind)(who, "research", on=day)
            continue
        getattr(book, kind)(who, "research", on=day)
        if who not in newest or stands != wanted:
            newest[who] = (day, wanted)
    for who in "AB":
        expected = newest.get(who, (date.min, False))[1]
        assert book.given(who, "research") == expected
        assert book.given(who, "research", TODAY) == expected
