"""What every wrapping must do, run over the whole catalogue; and what each does besides."""

from __future__ import annotations

import io
import json
import os
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keyring
import keyring.backend
import keyring.errors
import pytest

from sfumato.core.errors import IntegrityError, InvalidRequest, SfumatoError, UnknownName, VaultLocked
from sfumato.core.project import Project
from sfumato.data import wrapping
from sfumato.data.rotation import rotate
from sfumato.data.store import Place
from sfumato.data.vault import Vault
from sfumato.data.wrapping import CATALOGUE, Access, Wrapping, passphrase, read_descriptor
from sfumato.data.wrapping import file as key_file

SECRET = bytes(range(32))
PHRASE = "five random words in a row"


class MemoryKeyring(keyring.backend.KeyringBackend):
    """A keyring that lives as long as the object."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.entries:
            raise keyring.errors.PasswordDeleteError("no such entry")
        del self.entries[service, username]


@pytest.fixture
def ring() -> Iterator[MemoryKeyring]:
    before, ours = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(ours)
    yield ours
    keyring.set_keyring(before)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least scrypt that a record may ask for."""
    monkeypatch.setattr(passphrase, "LOG_N", 14)


@pytest.fixture
def access(tmp_path: Path, ring: MemoryKeyring, quick: None) -> dict[str, Access]:
    return {
        "passphrase": Access(passphrase=PHRASE),
        "file": Access(options={"path": str(tmp_path / "out" / "master.key")}),
        "keyring": Access(),
    }


@pytest.fixture
def other(tmp_path: Path) -> dict[str, Access]:
    """Access of the same kind that must not open what `access` wrapped."""
    (tmp_path / "foreign.key").write_text("0" * 64)
    (tmp_path / "foreign.key").chmod(0o600)
    return {
        "passphrase": Access(passphrase=PHRASE + "s"),
        "file": Access(options={"path": str(tmp_path / "foreign.key")}),
    }


@pytest.mark.parametrize("name", CATALOGUE.names)
class TestContract:
    def test_it_says_what_it_is(self, name: str) -> None:
        plugin = CATALOGUE.load(name)
        assert plugin.summary
        assert not plugin.missing

    def test_the_secret_comes_back_in_a_new_object(self, name: str, access: dict[str, Access]) -> None:
        one: Wrapping = CATALOGUE.build(name, access=access[name])
        assert isinstance(one, Wrapping)
        record = one.wrap(SECRET, b"here")
        stored = json.loads(json.dumps(record))
        assert CATALOGUE.build(name, access=access[name]).unwrap(stored, b"here") == SECRET

    def test_the_record_holds_no_secret(self, name: str, access: dict[str, Access]) -> None:
        text = json.dumps(CATALOGUE.build(name, access=access[name]).wrap(SECRET, b"here"))
        for secret in (SECRET.hex(), PHRASE):
            assert secret not in text

    def test_two_records_of_one_secret_differ(self, name: str, access: dict[str, Access]) -> None:
        plugin: Wrapping = CATALOGUE.build(name, access=access[name])
        assert plugin.wrap(SECRET, b"here") != plugin.wrap(SECRET, b"here")

    def test_another_context_does_not_unwrap(self, name: str, access: dict[str, Access]) -> None:
        plugin: Wrapping = CATALOGUE.build(name, access=access[name])
        record = plugin.wrap(SECRET, b"here")
        with pytest.raises(VaultLocked):
            plugin.unwrap(record, b"there")

    def test_a_changed_record_does_not_unwrap(self, name: str, access: dict[str, Access]) -> None:
        plugin: Wrapping = CATALOGUE.build(name, access=access[name])
        record = plugin.wrap(SECRET, b"here")
        sealed = record["sealed"]
        for changed in (
            {},
            record | {"sealed": sealed[:-2] + ("00" if sealed[-2:] != "00" else "01")},
            record | {"sealed": "not hex"},
            record | {"sealed": ""},
        ):
            with pytest.raises(SfumatoError):
                plugin.unwrap(changed, b"here")

    def test_forgetting_twice_is_fine(self, name: str, access: dict[str, Access]) -> None:
        plugin: Wrapping = CATALOGUE.build(name, access=access[name])
        record = plugin.wrap(SECRET, b"here")
        plugin.forget(record)
        plugin.forget(record)

    def test_an_unknown_setting_is_refused(self, name: str) -> None:
        with pytest.raises(InvalidRequest, match="no setting 'paht'"):
            CATALOGUE.build(name, access=Access(options={"paht": "x"}))

    def test_the_settings_before_stand_in_a_rotation(
        self, name: str, access: dict[str, Access], project: Project
    ) -> None:
        vault = Vault.init(project.root, name, access[name])
        place = Place("scans", "1", "x")
        item = vault.put(b"x", place)
        rotate(vault.keys, access=Access(passphrase=PHRASE))
        assert Vault.of(project.root, Access(passphrase=PHRASE)).get(item, place) == b"x"

    def test_the_wrong_key_opens_nothing(
        self, name: str, access: dict[str, Access], other: dict[str, Access]
    ) -> None:
        if name not in other:
            return  # the keyring has one key per record: `test_a_changed_record_does_not_unwrap`
        record = CATALOGUE.build(name, access=access[name]).wrap(SECRET, b"here")
        with pytest.raises(VaultLocked, match="does not open this vault"):
            CATALOGUE.build(name, access=other[name]).unwrap(record, b"here")


def test_a_mistyped_wrapping_is_suggested(project: Project) -> None:
    with pytest.raises(UnknownName, match="did you mean 'passphrase'"):
        Vault.init(project.root, "passphrse")


def test_listing_loads_no_cryptography() -> None:
    import subprocess

    code = (
        "import sys; from sfumato.data.wrapping import CATALOGUE as c; [c.load(n).summary for n in c.names]; "
        "print({'cryptography', 'keyring'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_a_key_service_of_a_third_party_plugs_in(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """One module with the four names and an entry point; here a service that keeps secrets by number."""
    kept: list[tuple[bytes, bytes]] = []

    class Service:
        def wrap(self, secret: bytes, context: bytes, *, previous: Any = None) -> dict[str, Any]:
            kept.append((secret, context))
            return {"number": len(kept) - 1}

        def unwrap(self, record: Mapping[str, Any], context: bytes) -> bytes:
            secret, bound = kept[record["number"]]
            assert bound == context
            return secret

        def forget(self, record: Mapping[str, Any]) -> None:
            kept[record["number"]] = (b"", b"")

    module = types.ModuleType("toy_kms")
    vars(module).update(SUMMARY="a toy", NEEDS=(), EXTRA="", build=lambda access=None: Service())
    monkeypatch.setitem(sys.modules, "toy_kms", module)
    targets = wrapping.CATALOGUE._targets
    monkeypatch.setitem(targets, "toy-kms", "toy_kms")
    vault = Vault.init(project.root, "toy-kms")
    place = Place("scans", "1", "x")
    name = vault.put(b"x", place)
    rotate(vault.keys)
    assert Vault.of(project.root).get(name, place) == b"x"
    assert kept[0] == (b"", b"")


# Passphrase


def test_a_guess_costs_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(passphrase.VARIABLE, PHRASE)
    record = passphrase.build().wrap(SECRET, b"here")
    assert (record["log_n"], record["r"], record["p"]) == (17, 8, 1)
    assert passphrase.build().unwrap(record, b"here") == SECRET


def test_a_wrong_passphrase_costs_as_much_and_says_no_more(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = passphrase.build(Access(passphrase=PHRASE)).wrap(SECRET, b"here")
    calls: list[int] = []
    stretch = passphrase._stretch
    monkeypatch.setattr(passphrase, "_stretch", lambda *a: calls.append(1) or stretch(*a))
    messages = set()
    for wrong in ("", "x", PHRASE[:-1], PHRASE.upper()):
        with pytest.raises(VaultLocked) as refusal:
            passphrase.build(Access(passphrase=wrong)).unwrap(record, b"here")
        messages.add(str(refusal.value))
        assert not wrong or wrong not in str(refusal.value).split("'")
    assert len(calls) == 4
    assert len(messages) == 1


def test_a_passphrase_reads_alike_on_every_keyboard(quick: None) -> None:
    record = passphrase.build(Access(passphrase="Zoe\u0308 likes long words")).wrap(SECRET, b"here")
    assert passphrase.build(Access(passphrase="Zoë likes long words")).unwrap(record, b"here") == SECRET


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="12 characters"):
        passphrase.build(Access(passphrase="password123")).wrap(SECRET, b"here")


def test_without_terminal_or_variable_the_ways_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(passphrase.VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(VaultLocked, match=r"SFUMATO_PASSPHRASE.*--passphrase-fd"):
        passphrase.build().wrap(SECRET, b"here")


def test_a_terminal_asks_twice_for_a_new_one(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(passphrase.VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    answers = [PHRASE, PHRASE + "x", PHRASE, PHRASE, PHRASE]
    monkeypatch.setattr("getpass.getpass", lambda prompt: answers.pop(0))
    with pytest.raises(InvalidRequest, match="differ"):
        passphrase.build().wrap(SECRET, b"here")
    record = passphrase.build().wrap(SECRET, b"here")
    assert passphrase.build().unwrap(record, b"here") == SECRET
    assert answers == []


@pytest.mark.parametrize("change", [{"log_n": 4}, {"log_n": 40}, {"r": 10**6}, {"p": 0}, {"salt": "x"}])
def test_a_record_cannot_ask_for_a_cheap_or_endless_scrypt(quick: None, change: dict[str, Any]) -> None:
    plugin = passphrase.build(Access(passphrase=PHRASE))
    with pytest.raises(IntegrityError, match=r"vault\.json"):
        plugin.unwrap(plugin.wrap(SECRET, b"here") | change, b"here")


def test_a_passphrase_is_never_shown() -> None:
    assert PHRASE not in repr(Access(passphrase=PHRASE))


def test_a_descriptor_gives_one_line() -> None:
    read, write = os.pipe()
    os.write(write, f"{PHRASE}\nmore\n".encode())
    os.close(write)
    assert read_descriptor(read) == PHRASE
    os.close(read)
    with pytest.raises(InvalidRequest, match="descriptor"):
        read_descriptor(read)


# Key file


def test_a_key_file_inside_the_project_is_refused(project: Project) -> None:
    for inside in ("k", ".sfumato/../k"):
        with pytest.raises(InvalidRequest, match="inside the project"):
            Vault.init(project.root, "file", Access(options={"path": str(project.root / inside)}))
    assert not (project.root / "k").exists()


def test_a_key_file_without_a_path_says_so(project: Project) -> None:
    with pytest.raises(InvalidRequest, match="--set path=FILE"):
        Vault.init(project.root, "file")


@pytest.mark.skipif(os.name != "posix", reason="modes are a POSIX thing")
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    plugin = key_file.build(Access(options={"path": str(tmp_path / "k")}))
    record = plugin.wrap(SECRET, b"here")
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    (tmp_path / "k").chmod(0o644)
    with pytest.raises(VaultLocked, match="chmod 600"):
        plugin.unwrap(record, b"here")


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"0" * 62, b"g" * 64, b"0" * 4000])
def test_what_is_no_key_file_says_so(tmp_path: Path, text: bytes) -> None:
    plugin = key_file.build(Access(options={"path": str(tmp_path / "k")}))
    record = plugin.wrap(SECRET, b"here")
    (tmp_path / "k").write_bytes(text)
    with pytest.raises(VaultLocked, match="not a key file"):
        plugin.unwrap(record, b"here")


def test_a_moved_key_file_is_found_by_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = key_file.build(Access(options={"path": str(tmp_path / "k")})).wrap(SECRET, b"here")
    (tmp_path / "k").rename(tmp_path / "moved")
    with pytest.raises(VaultLocked, match=key_file.VARIABLE):
        key_file.build().unwrap(record, b"here")
    monkeypatch.setenv(key_file.VARIABLE, str(tmp_path / "moved"))
    assert key_file.build().unwrap(record, b"here") == SECRET


# Keyring


def test_a_rotation_leaves_one_entry(ring: MemoryKeyring, project: Project) -> None:
    vault = Vault.init(project.root, "keyring")
    old = set(ring.entries)
    rotate(vault.keys)
    assert len(ring.entries) == 1
    assert not old & set(ring.entries)


def test_a_keyring_that_lost_the_entry_says_so(ring: MemoryKeyring, project: Project) -> None:
    Vault.init(project.root, "keyring")
    ring.entries.clear()
    with pytest.raises(VaultLocked, match="holds no entry"):
        Vault.of(project.root).pseudonym("Ada")


@pytest.mark.parametrize("backend", ["keyring.backends.fail.Keyring", "keyring.backends.null.Keyring"])
def test_a_keyring_that_keeps_nothing_is_refused(ring: MemoryKeyring, project: Project, backend: str) -> None:
    import importlib

    module, _, name = backend.rpartition(".")
    keyring.set_keyring(getattr(importlib.import_module(module), name)())
    with pytest.raises(VaultLocked, match="no working keyring"):
        Vault.init(project.root, "keyring")
    assert not (project.root / ".sfumato" / "keys" / "vault.json").exists()
