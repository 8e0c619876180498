"""Who acts, as what, and the tokens that servers ask with."""

from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from sfumato.core import identity, tokens
from sfumato.core.consent import Register
from sfumato.core.errors import IntegrityError, InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.event import NoEvent
from sfumato.core.gate import Plan
from sfumato.core.identity import Actor, Pseudonyms, local_actor, local_user
from sfumato.core.policy import Policy
from sfumato.core.project import Project
from sfumato.core.roles import RIGHTS, ROLES, may, require
from sfumato.core.tokens import Tokens

BARE = Policy.parse('[project]\nname = "x"')
LATER = datetime.now(UTC) + timedelta(days=1)
#: What each role may do, written out a second time.
MATRIX = {
    "owner": "redact query train export restore curate consent erase read raise tokens vault",
    "curator": "redact export restore curate consent erase read",
    "analyst": "redact query train read",
    "auditor": "read",
}


def policy(roles: str) -> Policy:
    return Policy.parse(f'[project]\nname = "x"\n[roles]\n{roles}')


# Roles


def test_the_table_of_rights_is_the_one_written_here() -> None:
    assert set(MATRIX) == set(ROLES)
    for role in ROLES:
        assert {right for right in RIGHTS if may(role, right)} == set(MATRIX[role].split())


@pytest.mark.parametrize("right", [*RIGHTS, "unheard of"])
@pytest.mark.parametrize("role", [*ROLES, None])
def test_every_role_and_right(role: str | None, right: str) -> None:
    allowed = role is not None and (right in MATRIX[role].split() or role == "owner")
    if allowed:
        require(role, right)  # type: ignore[arg-type]
        return
    with pytest.raises(PolicyRefused, match=f"'{right}'") as caught:
        require(role, right)  # type: ignore[arg-type]
    assert "owner" in str(caught.value)


# The local user


def test_who_acts_is_what_the_system_says_and_not_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = local_user()
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME", "SUDO_USER", "SUDO_UID"):
        monkeypatch.setenv(name, "maria")
    assert local_user() == before
    assert before[0] == f"uid:{os.getuid()}"


def test_without_roles_everyone_here_is_the_owner(tmp_path: Path) -> None:
    actor = local_actor(BARE, tmp_path)
    assert (actor.role, actor.who) == ("owner", "")
    assert not list(tmp_path.iterdir())  # and no key is made


def test_roles_by_name_and_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "local_user", lambda: ("uid:1000", "jan"))
    assert local_actor(policy('owner = ["maria"]\nanalyst = ["jan"]'), tmp_path).role == "analyst"
    assert local_actor(policy('owner = ["uid:1000"]'), tmp_path).role == "owner"
    assert local_actor(policy('owner = ["maria"]'), tmp_path).role is None
    with pytest.raises(PolicyRefused, match="one user"):
        local_actor(policy('owner = ["jan"]\nauditor = ["uid:1000"]'), tmp_path)


def test_the_ledger_gets_a_keyed_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "local_user", lambda: ("uid:1000", "jan"))
    actor = local_actor(policy('owner = ["jan"]'), tmp_path)
    again = local_actor(policy('owner = ["jan"]'), tmp_path)
    assert actor.label() == again.label() == {"role": "owner", "who": actor.who}
    (tmp_path / "other").mkdir()
    assert local_actor(policy('owner = ["jan"]'), tmp_path / "other").who != actor.who
    key = tmp_path / identity.ACTORS_KEY
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [identity.ACTORS_KEY]
    key.write_bytes(b"short")
    with pytest.raises(InvalidRequest, match="32 bytes, this one 5"):
        Pseudonyms.of(tmp_path, identity.ACTORS_KEY)


def test_a_machine_that_has_only_the_policy_gets_its_folder(tmp_path: Path) -> None:
    (tmp_path / "sfumato.toml").write_text('[project]\nname = "x"\n[roles]\nowner = ["somebody"]\n')
    assert Project(tmp_path).actor.role is None
    assert stat.S_IMODE((tmp_path / ".sfumato").stat().st_mode) == 0o700


def test_the_key_is_made_once(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(Pseudonyms.of(tmp_path).subject("Ann")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_the_role_goes_on_the_receipt_and_no_name_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Project.init(tmp_path / "p").ledger.close()
    monkeypatch.setattr(identity, "local_user", lambda: ("uid:424242424242", "jan"))
    wanted = Plan(action="redact", mechanism="m", guarantee="tested", statement="s", event=NoEvent())
    with Project(tmp_path / "p").gate().open(wanted) as permit:
        assert "by" not in permit.settle().body  # one person needs no label
    with (tmp_path / "p" / "sfumato.toml").open("a") as file:
        file.write('\n[roles]\nowner = ["maria"]\nanalyst = ["jan"]\n')
    project = Project(tmp_path / "p")
    with project.gate().open(wanted) as permit:
        receipt = permit.settle()
    assert receipt.body["by"] == {"role": "analyst"}
    assert receipt.rows[0].body["plan"]["by"] == {"role": "analyst", "who": project.actor.who}
    said = json.dumps(receipt.to_data())
    assert "jan" not in said
    assert "424242424242" not in said  # longer than a hash would hold by chance


# Tokens


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(tokens, "_hasher", lambda: quick)
    monkeypatch.setattr(tokens, "_DUMMY", [])
    return Tokens(tmp_path / "tokens.json", "ledger-1")


def test_a_token_is_its_holder(book: Tokens) -> None:
    text, token = book.create("ci", "analyst", expires=LATER, purposes=["care"], actions=["query"])
    actor = book.authenticate(text, BARE)
    assert (actor.role, actor.purposes, actor.actions) == ("analyst", ("care",), ("query",))
    assert actor.label() == {"role": "analyst", "who": token.id}
    stored = book.path.read_text()
    assert text not in stored
    assert text.rpartition("_")[2] not in stored
    assert stat.S_IMODE(book.path.stat().st_mode) == 0o600
    assert "hash" not in token.to_data()


def test_the_hash_is_argon2id_at_the_strength_of_its_standard(tmp_path: Path) -> None:
    real = Tokens(tmp_path / "tokens.json", "ledger-1")
    text, token = real.create("ci", "analyst", expires=LATER)
    assert token.hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert real.authenticate(text, BARE).role == "analyst"


def test_what_is_not_a_token_of_this_project_gets_one_answer(book: Tokens) -> None:
    text, token = book.create("ci", "analyst", expires=LATER)
    other, _ = book.create("other", "analyst", expires=LATER)
    _, number, secret = text.split("_")
    wrong = [
        "",
        "x",
        text[:-1],
        text[1:],
        text + "0",
        text.upper(),
        f"{number}_{secret}",
        f"abc_{number}_{secret}",
        f"sft_{number}_",
        f"sft__{secret}",
        f"sft_{number}_{other.rpartition('_')[2]}",
        f"sft_{'0' * 12}_{secret}",
        f"sft_{'0' * 12}_{tokens.NOTHING}",
        f"sft_{number}_{token.hash}",
        "sft_é_ü",
        f"sft_{number}_\udc80",
        "sft_\udc80_\udc80",
        "\0" * 50,
    ]
    said = set()
    for attempt in wrong:
        with pytest.raises(PolicyRefused) as caught:
            book.authenticate(attempt, BARE)
        said.add(str(caught.value))
    assert said == {tokens.INVALID}


def test_a_token_does_not_move_to_another_project(book: Tokens, tmp_path: Path) -> None:
    text, _ = book.create("ci", "analyst", expires=LATER)
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / "tokens.json"
    copy.write_bytes(book.path.read_bytes())
    with pytest.raises(PolicyRefused, match="not valid here"):
        Tokens(copy, "ledger-2").authenticate(text, BARE)
    assert Tokens(copy, "ledger-1").authenticate(text, BARE)  # the project makes the difference


@pytest.mark.parametrize(
    ("key", "value"),
    [("role", "curator"), ("expires", "2999-01-01T00:00:00+00:00"), ("purposes", None), ("name", "boss")],
)
def test_an_edited_record_makes_the_token_nothing(book: Tokens, key: str, value: object) -> None:
    text, _ = book.create("ci", "analyst", expires=LATER, purposes=["care"])
    data = json.loads(book.path.read_text())
    data["tokens"][0][key] = value
    book.path.write_text(json.dumps(data))
    with pytest.raises(PolicyRefused, match="not valid here"):
        book.authenticate(text, BARE)


def test_tokens_end_and_are_taken_back(book: Tokens) -> None:
    text, _ = book.create("ci", "analyst", expires=LATER)
    assert book.authenticate(text, BARE, at=LATER - timedelta(seconds=2))
    with pytest.raises(PolicyRefused, match="'ci' ended at"):
        book.authenticate(text, BARE, at=LATER)
    book.revoke("ci")
    with pytest.raises(PolicyRefused, match="was revoked"):
        book.authenticate(text, BARE)
    with pytest.raises(PolicyRefused, match="not valid here"):
        book.authenticate(text[:-1], BARE)  # only its holder learns that it was revoked
    with pytest.raises(UnknownName, match="unknown token 'ci'"):
        book.revoke("ci")
    again, _ = book.create("ci", "analyst", expires=LATER)
    assert book.authenticate(again, BARE)


def test_the_scope_of_a_token_holds_for_every_right(book: Tokens) -> None:
    """Beside the gate too: a token for exports records no consent, one for care none to research."""
    text, _ = book.create("ci", "curator", expires=LATER, purposes=["care"], actions=["export"])
    export = book.authenticate(text, BARE)
    export.require("export")
    for right in ("consent", "curate", "erase", "read"):
        with pytest.raises(PolicyRefused, match="limited to the actions export") as caught:
            export.require(right)
        assert caught.value.rule == "token.actions"
    text, _ = book.create("care", "curator", expires=LATER, purposes=["care"])
    register = Register(
        ":memory:", pseudonym=Pseudonyms(bytes(32)).subject, actor=book.authenticate(text, BARE)
    )
    register.give("Ann", "care")
    for act in (register.give, register.withdraw):
        with pytest.raises(PolicyRefused, match="limited to the purposes care"):
            act("Ann", "research")
    assert register.counts() == {"care": {"given": 1, "withdrawn": 0}}


def test_a_token_that_ended_has_no_rights_left() -> None:
    """A server may hold on to an actor for longer than the token lives."""
    ended = Actor("token:1", "curator", expires=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(PolicyRefused, match="the token ended"):
        ended.require("consent")


def test_a_name_of_a_token_fits_into_the_policy(book: Tokens) -> None:
    name = "x" * 94
    text, _ = book.create(name, "analyst", expires=LATER)
    assert book.authenticate(text, policy(f'owner = ["a"]\nanalyst = ["token:{name}"]'))
    with pytest.raises(InvalidRequest, match="name must be"):
        book.create("x" * 95, "analyst", expires=LATER)


def test_the_policy_has_the_last_word_on_tokens(book: Tokens) -> None:
    text, _ = book.create("ci", "analyst", expires=LATER)
    assert book.authenticate(text, policy('owner = ["a"]\nanalyst = ["token:ci"]')).role == "analyst"
    for roles in (
        'owner = ["a"]',
        'owner = ["a"]\ncurator = ["token:ci"]',
        'owner = ["a"]\nanalyst = ["ci"]',
    ):
        with pytest.raises(PolicyRefused, match=r'"token:ci" under roles\.analyst'):
            book.authenticate(text, policy(roles))


def test_wrong_tokens_are_not_made(book: Tokens) -> None:
    book.create("ci", "analyst", expires=LATER)
    with pytest.raises(InvalidRequest, match="never an owner"):
        book.create("x", "owner", expires=LATER)
    with pytest.raises(UnknownName, match="did you mean 'analyst'"):
        book.create("x", "analist", expires=LATER)
    with pytest.raises(InvalidRequest, match="there is a token named 'ci'"):
        book.create("ci", "auditor", expires=LATER)
    for name in ("", "a b", "a/b", "x" * 101, "a\n"):
        with pytest.raises(InvalidRequest, match="name must be"):
            book.create(name, "auditor", expires=LATER)
    for when in (datetime.now(UTC) - timedelta(1), LATER.replace(tzinfo=None)):
        with pytest.raises(InvalidRequest, match="in the future, with a time zone"):
            book.create("x", "auditor", expires=when)


@pytest.mark.parametrize("role", ["curator", "analyst", "auditor", None])
def test_only_owners_make_and_revoke(book: Tokens, role: str | None) -> None:
    book.create("ci", "analyst", expires=LATER)
    other = Tokens(book.path, book.project, actor=Actor("uid:5", role))  # type: ignore[arg-type]
    with pytest.raises(PolicyRefused, match="'tokens'"):
        other.create("x", "analyst", expires=LATER)
    with pytest.raises(PolicyRefused, match="'tokens'"):
        other.revoke("ci")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": "sfumato-tokens/9", "tokens": []}',
        '{"format": "sfumato-tokens/1", "tokens": [{"id": "x"}]}',
        '{"format": "sfumato-tokens/1", "tokens": [3]}',
        "[" * 100_000,
        '{"format": "sfumato-tokens/1", "tokens": [{"id": 5, "name": "x", "role": "analyst", "made": "", '
        '"purposes": null, "actions": null, "expires": "2999-01-01T00:00:00+00:00"}]}',
        '{"format": "sfumato-tokens/1", "tokens": [{"id": "x", "name": "x", "role": "analyst", "made": "", '
        '"purposes": null, "actions": null, "expires": "2999-01-01T00:00:00"}]}',
    ],
)
def test_a_broken_file_is_refused(book: Tokens, content: str) -> None:
    book.path.write_text(content)
    with pytest.raises(IntegrityError, match=r"tokens\.json"):
        book.authenticate("sft_x_y", BARE)


def test_a_forged_owner_token_is_refused(book: Tokens) -> None:
    """Someone who writes the file and knows the recipe still makes no owner."""
    text, token = book.create("ci", "analyst", expires=LATER)
    forged = replace(token, role="owner")
    secret = text.rpartition("_")[2]
    forged = replace(forged, hash=tokens._hasher().hash(forged.scope("ledger-1") + secret.encode()))
    book._write([forged])
    with pytest.raises(IntegrityError, match="'owner'"):
        book.authenticate(text, BARE)


def test_revoking_and_making_at_once_loses_nothing(book: Tokens) -> None:
    for number in range(6):
        book.create(f"old-{number}", "auditor", expires=LATER)
    acts = [threading.Thread(target=book.revoke, args=(f"old-{number}",)) for number in range(6)]
    acts += [
        threading.Thread(target=book.create, args=(f"new-{number}", "auditor"), kwargs={"expires": LATER})
        for number in range(6)
    ]
    for act in acts:
        act.start()
    for act in acts:
        act.join()
    known = book.all()
    assert sum(bool(token.revoked) for token in known) == 6
    assert len(known) == 12
