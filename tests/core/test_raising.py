"""Raising a budget takes two different owners, whatever one of them does."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfumato.core import identity, ledger, raising, tokens
from sfumato.core.book import row_hash
from sfumato.core.errors import InvalidRequest, LedgerTampered, PolicyRefused, SfumatoError, UnknownName
from sfumato.core.files import canonical
from sfumato.core.ledger import Ledger
from sfumato.core.project import Project
from sfumato.core.verify import verify

ROLES = '[roles]\nowner = ["maria", "uid:1002"]\nanalyst = ["eva", "token:ci"]\n'


def write(root: Path, epsilon: str = "1", roles: str = ROLES, delta: str = "0") -> None:
    (root / "sfumato.toml").write_text(
        f'[project]\nname = "x"\n[populations.residents]\nunit = "person"\nepsilon = {epsilon}\n'
        f"delta = {delta}\n{roles}"
    )


def budget(root: Path) -> Fraction:
    book = Project(root).book()
    try:
        return Fraction(book.populations()["residents"]["epsilon"])
    finally:
        book.close()


Acting = Callable[[str], None]
NAMES = {"maria": "uid:1001", "jan": "uid:1002", "eva": "uid:1003", "stranger": "uid:1004"}


@pytest.fixture
def acting(monkeypatch: pytest.MonkeyPatch) -> Acting:
    """Say which user of the machine runs this process."""
    return lambda name: monkeypatch.setattr(identity, "local_user", lambda: (NAMES[name], name))


@pytest.fixture
def root(tmp_path: Path, acting: Acting) -> Path:
    acting("maria")
    Project.init(tmp_path / "p").ledger.close()
    write(tmp_path / "p")
    Project(tmp_path / "p").ledger.close()
    write(tmp_path / "p", "2")
    return tmp_path / "p"


def test_two_owners_raise_a_budget(root: Path, acting: Acting) -> None:
    proposal = raising.propose(Project(root), "residents", reason="board decision 12")
    assert budget(root) == 1
    acting("jan")
    raising.approve(Project(root), "residents")
    assert budget(root) == 2
    project = Project(root)
    last = project.ledger.book.find("population", "residents")
    assert last is not None
    assert last.body["approval"]["proposal"] == proposal.seq
    assert {proposal.body["by"]["key"], last.body["approval"]["by"]["key"]} == {"uid:1001", "uid:1002"}
    verify(project.ledger)


def test_the_one_who_proposed_cannot_approve(root: Path, acting: Acting) -> None:
    raising.propose(Project(root), "residents", reason="because")
    with pytest.raises(PolicyRefused, match="another owner must"):
        raising.approve(Project(root), "residents")
    write(root, "2", roles='[roles]\nowner = ["uid:1001", "jan"]')  # by another of one's names
    (root / ".sfumato" / identity.KEY_NAME).unlink(missing_ok=True)  # with another keyed hash
    with pytest.raises(PolicyRefused, match="another owner must"):
        raising.approve(Project(root), "residents")
    assert budget(root) == 1


@pytest.mark.parametrize(("days", "lapsed"), [(29, False), (31, True)])
def test_a_proposal_lapses(root: Path, acting: Acting, monkeypatch, days: int, lapsed: bool) -> None:
    raising.propose(Project(root), "residents", reason="because")
    acting("jan")
    later = datetime.now(UTC) + timedelta(days=days)
    monkeypatch.setattr(ledger, "_now", lambda: later.isoformat(timespec="microseconds"))
    if lapsed:
        with pytest.raises(PolicyRefused, match="lapsed after 30 days; propose again"):
            raising.approve(Project(root), "residents")
        assert budget(root) == 1
        monkeypatch.setattr(raising, "LAPSES", timedelta(days=60))  # a gate that forgets to look
        raising.approve(Project(root), "residents")
        monkeypatch.setattr(raising, "LAPSES", timedelta(days=30))
        with pytest.raises(LedgerTampered, match="lapsed after 30 days"):
            verify(Project(root).ledger)
    else:
        raising.approve(Project(root), "residents")
        verify(Project(root).ledger)


def test_what_a_former_owner_proposed_is_void(root: Path, acting: Acting, monkeypatch) -> None:
    raising.propose(Project(root), "residents", reason="because")
    acting("jan")
    write(root, "2", roles='[roles]\nowner = ["uid:1002"]\nanalyst = ["maria"]\n')
    with pytest.raises(PolicyRefused, match="is no owner any more"):
        raising.approve(Project(root), "residents")
    assert budget(root) == 1
    given = Project(root).book().book.find("proposal", "residents")
    assert given is not None
    approval = {"proposal": given.seq, "hash": given.hash, "by": {"role": "owner", "key": "uid:1002"}}
    monkeypatch.setattr(raising, "check", lambda *_: None)  # a ledger that forgets to look
    Project(root).book().open_population(
        "residents", epsilon=2, delta=0, unit="person", reason="x", approval=approval
    )
    with pytest.raises(LedgerTampered, match="is no owner any more"):
        verify(Project(root).ledger)


@pytest.mark.parametrize("name", ["eva", "stranger"])
def test_only_owners_propose_and_approve(root: Path, acting: Acting, name: str) -> None:
    acting(name)
    with pytest.raises(PolicyRefused, match="'raise'"):
        raising.propose(Project(root), "residents", reason="because")
    acting("jan")
    raising.propose(Project(root), "residents", reason="because")
    acting(name)
    with pytest.raises(PolicyRefused, match="'raise'"):
        raising.approve(Project(root), "residents")


def test_exactly_what_was_proposed_is_approved(root: Path, acting: Acting) -> None:
    raising.propose(Project(root), "residents", reason="because")
    acting("jan")
    for epsilon, delta in (("3", "0"), ("2", "1e-6"), ("2.000000001", "0")):
        write(root, epsilon, delta=delta)
        with pytest.raises(PolicyRefused, match="the proposal is for epsilon 2, delta 0, and"):
            raising.approve(Project(root), "residents")
    write(root, "2")
    raising.approve(Project(root), "residents")
    write(root, "1.5")
    Project(root).ledger.close()  # lowered again
    write(root, "2")
    with pytest.raises(PolicyRefused, match="changed after the proposal"):
        raising.approve(Project(root), "residents")  # an approval is used once
    assert budget(root) == Fraction(3, 2)


def test_what_cannot_be_proposed_says_why(root: Path) -> None:
    with pytest.raises(InvalidRequest, match="needs a reason"):
        raising.propose(Project(root), "residents", reason=" ")
    with pytest.raises(UnknownName, match="did you mean 'residents'"):
        raising.propose(Project(root), "resident", reason="x")
    with pytest.raises(InvalidRequest, match="nobody proposed"):
        raising.approve(Project(root), "residents")
    write(root, "1")
    with pytest.raises(InvalidRequest, match=r"as sfumato\.toml says"):
        raising.propose(Project(root), "residents", reason="x")


def test_taking_the_roles_away_does_not_bring_one_step_back(root: Path) -> None:
    write(root, "2", roles="")
    with pytest.raises(PolicyRefused, match="two different owners, because roles were declared"):
        raising.raise_alone(Project(root), "residents", reason="because")
    with pytest.raises(PolicyRefused, match="two different owners"):
        Project(root).book().open_population("residents", epsilon=2, delta=0, unit="person", reason="because")
    assert budget(root) == 1


def test_taking_the_roles_away_makes_nobody_an_owner(root: Path, acting: Acting) -> None:
    """Else an analyst who empties the section could approve what one owner proposed."""
    raising.propose(Project(root), "residents", reason="because")
    acting("eva")
    write(root, "2", roles="")
    for act in (
        lambda: raising.approve(Project(root), "residents"),
        lambda: raising.propose(Project(root), "residents", reason="because"),
        lambda: Project(root).actor,
        lambda: Project(root).tokens,
        lambda: Project(root).consent,
    ):
        with pytest.raises(PolicyRefused, match=r"put \[roles\] back") as caught:
            act()
        assert caught.value.rule == "roles"
    write(root, "1", roles="")
    with pytest.raises(PolicyRefused, match=r"put \[roles\] back"):
        Project(root).gate()
    with pytest.raises(PolicyRefused, match=r"put \[roles\] back"):
        Project(root).gate(actor=identity.Actor("token:1", "analyst"))
    assert budget(root) == 1


def test_an_approval_can_name_the_proposal_that_was_read(root: Path, acting: Acting) -> None:
    """Else a newer proposal of more could slip under the approver's hand."""
    first = raising.propose(Project(root), "residents", reason="board decision 12")
    write(root, "50")
    raising.propose(Project(root), "residents", reason="board decision 12")
    acting("jan")
    with pytest.raises(InvalidRequest, match=rf"the newest proposal is row .* not row {first.seq}"):
        raising.approve(Project(root), "residents", row=first.seq)
    assert budget(root) == 1


def test_without_roles_one_person_and_a_reason_do(tmp_path: Path) -> None:
    Project.init(tmp_path / "p").ledger.close()
    write(tmp_path / "p", roles="")
    Project(tmp_path / "p").ledger.close()
    write(tmp_path / "p", "2", roles="")
    raising.raise_alone(Project(tmp_path / "p"), "residents", reason="because")
    assert budget(tmp_path / "p") == 2
    verify(Project(tmp_path / "p").ledger)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can be two users")
def test_two_users_of_one_machine_raise_a_budget(tmp_path: Path) -> None:
    """Two processes of two users, in a folder that is shared by a group, as the sharp edges describe."""
    Project.init(tmp_path / "p").ledger.close()
    root = tmp_path / "p"
    shared = "[roles]\nowner = [{}]\n[ledger]\nanchor = {!r}\n".format(
        '"uid:54321", "uid:54322"', str(root / ".sfumato" / "heads")
    )
    write(root, roles=shared)
    Project(root).ledger.close()
    write(root, "2", roles=shared)
    for folder in (root, *root.parents):
        if Path(tempfile.gettempdir()) in folder.parents:
            folder.chmod(0o755)
    for path in (root / ".sfumato", *(root / ".sfumato").rglob("*")):
        os.chown(path, -1, 54320)
        path.chmod(0o2770 if path.is_dir() else 0o660)

    def propose() -> None:
        raising.propose(Project(root), "residents", reason="because")

    def approve() -> None:
        raising.approve(Project(root), "residents")

    assert as_user(54321, propose) == ""
    assert "another owner must" in as_user(54321, approve)
    assert "'raise'" in as_user(54323, approve)
    assert budget(root) == 1
    assert as_user(54322, approve) == ""
    assert budget(root) == 2


def as_user(user: int, call: Callable[[], None]) -> str:
    """Do something as another user, in a child of this process; return what it raised."""
    read, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fork beside threads: this child touches none of them
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(54320)
            os.setuid(user)
            os.umask(0o007)
            os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()  # each user has a memory of their own
            call()
        except BaseException as error:
            os.write(write_end, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read, encoding="utf-8") as pipe:  # noqa: PTH123
        said = pipe.read()
    os.waitpid(child, 0)
    return said


# One identity, anything it can do


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "propose", "approve", "alone", "open", "direct", "token", "key"]),
        st.sampled_from(["0.5", "1", "2", "3"]),
        st.sampled_from(
            [
                "",
                '[roles]\nowner = ["maria", "jan"]\n',
                '[roles]\nowner = ["uid:1001", "jan"]\n',
                '[roles]\nowner = ["jan"]\ncurator = ["maria", "token:ci"]\n',
                '[roles]\nowner = ["maria"]\ncurator = ["token:ci"]\n',
            ]
        ),
    ),
    max_size=14,
)


def step(root: Path, name: str, epsilon: str, roles: str) -> None:
    project = Project(root)
    if name == "write":
        write(root, epsilon, roles)
    elif name == "propose":
        raising.propose(project, "residents", reason="because")
    elif name == "approve":
        raising.approve(project, "residents")
    elif name == "alone":
        raising.raise_alone(project, "residents", reason="because")
    elif name == "open":
        project.ledger.close()
    elif name == "direct":
        with contextlib.closing(project.book()) as book:
            book.open_population("residents", epsilon=epsilon, delta=0, unit="person", reason="because")
    elif name == "token":
        with contextlib.suppress(SfumatoError):
            project.tokens.revoke("ci")
        text, _ = project.tokens.create("ci", "curator", expires=datetime.now(UTC) + timedelta(days=1))
        raising.approve(project, "residents", actor=project.tokens.authenticate(text, project.policy))
    else:
        (root / ".sfumato" / identity.KEY_NAME).unlink(missing_ok=True)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_no_sequence_of_calls_by_one_identity_raises_a_budget(
    steps: list[tuple[str, str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("one") / "p"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "local_user", lambda: ("uid:1001", "maria"))
        quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        patch.setattr(tokens, "_hasher", lambda: quick)
        Project.init(root).ledger.close()
        write(root, "1", '[roles]\nowner = ["maria", "jan"]\n')
        Project(root).ledger.close()
        most = budget(root)
        for name, epsilon, roles in steps:
            with contextlib.suppress(SfumatoError):
                step(root, name, epsilon, roles)
            assert budget(root) <= most  # it may fall, and then it stays down
            most = budget(root)
        verify(Project(root).book())


def test_the_property_would_see_a_raise_by_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps with the rule taken out do raise the budget."""
    monkeypatch.setattr(raising, "check", lambda *_: None)
    step(root, "direct", "2", "")
    assert budget(root) == 2


# The book


def forge(path: Path, change: Callable[[dict], None]) -> None:
    """Change the newest population row and chain the book again, as one who can write the file might."""
    import json

    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER no_update")
    seq, body, prev = raw.execute(
        "SELECT seq, body, prev FROM entries WHERE kind = 'population' ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    data = json.loads(body)
    change(data)
    raw.execute(
        "UPDATE entries SET body = ?, hash = ? WHERE seq = ?",
        (
            canonical(data).decode(),
            row_hash(seq, "population", "residents", None, data, prev),
            seq,
        ),
    )
    raw.commit()
    raw.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: row.pop("approval"), "names no proposal"),
        (lambda row: row["approval"]["by"].update(key="uid:1001"), "another owner must"),
        (lambda row: row["approval"]["by"].update(role="analyst"), "both must be owners"),
        (lambda row: row["approval"].update(hash="0" * 64), "another proposal"),
        (lambda row: row["approval"].update(proposal=1), "names no proposal"),
        (lambda row: row.update(epsilon="3"), "the proposal is for epsilon 2"),
        (lambda row: row.update(reason="another"), None),
    ],
)
def test_verify_sees_a_raise_without_two_owners(
    root: Path, acting: Acting, change: Callable[[dict], None], says: str | None
) -> None:
    raising.propose(Project(root), "residents", reason="because")
    acting("jan")
    raising.approve(Project(root), "residents")
    path = root / ".sfumato" / "ledger.db"
    forge(path, change)
    book = Ledger(path)  # without the anchor, which would see any of it
    if says is None:
        verify(book)
    else:
        with pytest.raises(LedgerTampered, match=says):
            verify(book)
    with pytest.raises(LedgerTampered):
        Project(root).book()
