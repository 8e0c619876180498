"""Whatever is done in whatever order: what should be readable is, what should not is not."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sfumato.core.errors import Erased, InvalidRequest
from sfumato.data.keyfiles import owner_of
from sfumato.data.rotation import rotate
from sfumato.data.store import Place
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access

PEOPLE = ("", "Ada", "Bob", "Carl")
people = st.sampled_from(PEOPLE)


class Sequences(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name) / "project"
        self.access = Access(options={"path": f"{self.folder.name}/master.key"})
        self.vault = Vault.init(self.root, "file", self.access)
        self.items: dict[str, tuple[str, Place, bytes]] = {}
        self.erased: set[str] = set()
        self.key_files: dict[str, set[bytes]] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    def place(self, who: str, version: str = "1") -> Place:
        return Place("scans", version, "item", self.vault.pseudonym(who) if who else "")

    @rule(who=people, data=st.binary(max_size=40), version=st.sampled_from("12"))
    def put(self, who: str, data: bytes, version: str) -> None:
        place = self.place(who, version)
        if who in self.erased:
            with pytest.raises(Erased):
                self.vault.put(data, place)
            return
        self.items[self.vault.put(data, place)] = who, place, data

    @rule(who=st.sampled_from(PEOPLE[1:]))
    def erase(self, who: str) -> None:
        if not any(owner == who for owner, _, _ in self.items.values()):
            with pytest.raises(InvalidRequest):
                self.vault.erase(self.place(who).subject)
            return
        files, owner = self.vault.keys.files, owner_of("subject", self.place(who).subject)
        generation = files.head().generation
        for number in files.numbers(generation, owner):
            self.key_files.setdefault(who, set()).add(files.key(generation, owner, number).read_bytes())
        self.vault.erase(self.place(who).subject)
        self.erased.add(who)

    @rule(data_keys=st.booleans())
    def rotate(self, data_keys: bool) -> None:
        rotate(self.vault.keys, data_keys=data_keys)

    @rule()
    def reopen(self) -> None:
        self.vault = Vault.of(self.root)

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        for name, (who, place, data) in self.items.items():
            self.vault.check(name)
            if who in self.erased:
                with pytest.raises(Erased):
                    self.vault.get(name, place)
            else:
                assert self.vault.get(name, place) == data
        assert set(self.vault.names()) == set(self.items)
        held = [path.read_bytes() for path in (self.root / ".sfumato" / "keys").rglob("*") if path.is_file()]
        for destroyed in self.key_files.values():
            assert not destroyed & set(held)


Sequences.TestCase.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSequences = Sequences.TestCase
