"""Taking data over: killed at any moment, doing it again finishes it; and sweeping what was left."""

from __future__ import annotations

import contextlib

import pytest

from sfumato.core import files
from sfumato.core.errors import Erased, InvalidRequest
from sfumato.core.policy import Policy
from sfumato.core.project import Project
from sfumato.data import takeover
from sfumato.data.add import add
from sfumato.data.catalogue import Catalogue
from sfumato.data.contents import rows
from sfumato.data.door import Request
from sfumato.data.opening import make_vault, open_data
from sfumato.data.store import Place
from sfumato.data.sweep import sweep


class Killed(BaseException):
    pass


def stored(project: Project, path) -> tuple[Catalogue, Request, Policy]:
    path.write_text("who,x\nAda,xenolith\nBob,2\n")
    catalogue, store = open_data(project)
    request = Request(dataset="d", path=path, unit="who", keep=("x",))
    add(catalogue, store, project.policy, request)
    return catalogue, request, project.policy


@pytest.mark.parametrize("step", range(1, 9))
def test_a_move_that_was_killed_goes_on(project: Project, outside, tmp_path, monkeypatch, step: int) -> None:
    catalogue, request, policy = stored(project, tmp_path / "t.csv")
    ada = catalogue.people.subject("Ada")
    left = [step]

    def counted(work):
        def call(*given, **named):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return work(*given, **named)

        return call

    with monkeypatch.context() as patch:
        for module, name in ((takeover, "shred"), (takeover, "put_all"), (files, "sync_folder")):
            patch.setattr(module, name, counted(getattr(module, name)))
        patch.setattr(Catalogue, "retire", counted(Catalogue.retire))
        with contextlib.suppress(Killed):
            make_vault(project, "file", outside)
    with contextlib.suppress(InvalidRequest):  # it has one already, and all is in there
        make_vault(project, "file", outside)
    catalogue, store = open_data(project)
    assert catalogue.people.subject("Ada") == ada
    assert rows(store, catalogue.usable("d")).table.num_rows == 2
    assert not any(b"xenolith" in path.read_bytes() for path in project.root.rglob("*") if path.is_file())
    assert not add(catalogue, store, policy, request).new


def test_sweep_waits_for_adds_and_removes_the_rest(project: Project, outside, tmp_path) -> None:
    stored(project, tmp_path / "t.csv")
    make_vault(project, "file", outside)
    catalogue, store = open_data(project)
    with catalogue.claim("d"):
        loose = store.put(b"left", Place("d", "9", "x"))
        with pytest.raises(InvalidRequest, match="being added now"):
            sweep(catalogue, store)
    assert sweep(catalogue, store) == (loose,)
    assert rows(store, catalogue.usable("d")).table.num_rows == 2


def test_an_erased_person_is_refused_before_anything_is_stored(project, outside, tmp_path) -> None:
    _, request, policy = stored(project, tmp_path / "t.csv")
    vault, _ = make_vault(project, "file", outside)
    catalogue, store = open_data(project)
    vault.erase(catalogue.people.subject("Ada"))
    assert not add(catalogue, store, policy, request).new  # the same data is known, and nothing is stored
    request.path.write_text("who,x\nAda,1\nBob,3\n")
    before = list(store.names())
    with pytest.raises(Erased, match="somebody in this source was erased"):
        add(catalogue, store, policy, request)
    assert list(store.names()) == before


def test_what_a_killed_writer_left_half_written_is_swept(project, outside, tmp_path) -> None:
    stored(project, tmp_path / "t.csv")
    make_vault(project, "file", outside)
    catalogue, vault = open_data(project, outside)
    left = project.root / ".sfumato" / "vault" / ".aside-0123456789abcdef"
    left.write_bytes(b"half")
    with catalogue.claim("d"), pytest.raises(InvalidRequest, match="being added now"):
        sweep(catalogue, vault)
    assert left.exists()
    assert sweep(catalogue, vault) == (left.name,)
    assert not left.exists()
    assert sweep(catalogue, vault) == ()
