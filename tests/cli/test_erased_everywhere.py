"""A person who was erased is nowhere under the project folder; without a vault the same search finds them."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sfumato.cli.main import main
from sfumato.core.project import Project
from sfumato.data.contents import gone, rows
from sfumato.data.keyfiles import owner_of
from sfumato.data.lineage import merge, view
from sfumato.data.opening import open_data
from sfumato.data.vault import Vault

ID, VALUE = "Zebulon-7731", "xenolithiasis"
POLICY = """
[project]
name = "clinic"
[purposes.research]
actions = ["export"]
[populations.patients]
unit = "patient"
epsilon = 1
[datasets.clinic]
keep = ["age", "diagnosis"]
purposes = ["research"]
unit = "patient"
population = "patients"
[datasets.photos]
purposes = ["research"]
unit = "folder"
population = "patients"
"""


def run(*words: str) -> None:
    with contextlib.suppress(SystemExit):
        main(list(words))
        return
    raise AssertionError(words)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)


def sources(folder: Path) -> None:
    """A table and pictures of some people; Zebulon's value and pixels are like nobody else's."""
    folder.mkdir()
    lines = [f"{ID},47,{VALUE}", "Bob,30,flu", "Cy,52,cold"]
    (folder / "visits.csv").write_text("\n".join(["patient,age,diagnosis", *lines, ""]))
    (folder / "more.csv").write_text("\n".join(["patient,age,diagnosis", *lines, f"{ID},48,{VALUE}", ""]))
    for seed, who in enumerate((ID, "Bob")):
        (folder / "photos" / who).mkdir(parents=True)
        Image.fromarray(pixels(seed)).save(folder / "photos" / who / "face.png")


def shown(data: bytes) -> bytes:
    """Everything that some bytes say: as they are, and decoded where they are a table or a picture."""
    found = [data]
    if data[:4] == b"PAR1":
        found.append(json.dumps(pq.read_table(io.BytesIO(data)).to_pylist(), default=str).encode())
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        found.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).tobytes())
    return b"\0".join(found)


def search(root: Path) -> set[str]:
    """Return what of the person is to be found under a folder, in names of files too."""
    face = pixels(0).tobytes()
    needles = {"id": ID.encode(), "value": VALUE.encode(), "pixels": face, "row of pixels": face[:96]}
    paths = sorted(root.rglob("*"))
    told = b"\0".join(
        str(path.relative_to(root)).encode() + (shown(path.read_bytes()) if path.is_file() else b"")
        for path in paths
    )
    return {name for name, needle in needles.items() if needle in told}


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sources(tmp_path / "in")
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    run("init")
    (root / "sfumato.toml").write_text(POLICY)
    return root


def fill(root: Path) -> None:
    run("data", "add", "clinic", "../in/visits.csv")
    run("data", "add", "clinic", "../in/more.csv")
    run("data", "add", "photos", "../in/photos")
    project = Project(root)
    catalogue, _ = open_data(project)
    both = merge(catalogue, [catalogue.find("clinic@1"), catalogue.find("clinic@2")], "both")
    view(catalogue, both, "some", [item.path for item in both.items][:2])
    project.close()
    run("consent", "give", ID, "--purpose", "research")


def vault() -> None:
    run("vault", "init", "--wrapping", "file", "--set", "path=../master.key")


def test_without_a_vault_the_search_finds_them(room: Path) -> None:
    fill(room)
    assert search(room) == {"value", "pixels", "row of pixels"}  # the id is a pseudonym from the door on


def test_a_vault_from_the_start(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vault()
    fill(room)
    assert search(room) == set()
    catalogue, _ = open_data(Project(room))
    subject = catalogue.people.subject(ID, "patients")
    key = Vault.of(room).keys.newest(owner_of("subject", subject))[1]
    capsys.readouterr()
    run("data", "add", "clinic", "../in/more.csv")
    assert "clinic@2 holds the same already" in capsys.readouterr().out
    run("vault", "erase", ID, "--yes")
    assert search(room) == set()
    assert not any(key in path.read_bytes() for path in room.rglob("*") if path.is_file())
    _the_rest_works(room, subject)


def test_a_vault_made_later_takes_everything_over(room: Path) -> None:
    fill(room)
    known = open_data(Project(room))[0].people.subject(ID, "patients")
    vault()
    assert search(room) == set()
    run("data", "add", "clinic", "../in/more.csv")
    catalogue, store = open_data(Project(room))
    assert [one.label for one in catalogue.versions("clinic")] == ["1", "2", "3"]  # known as the same
    assert catalogue.people.subject(ID, "patients") == known
    assert rows(store, catalogue.usable("both")).table.num_rows == 7
    run("vault", "erase", ID, "--yes")
    assert search(room) == set()
    _the_rest_works(room, known)


def _the_rest_works(root: Path, subject: str) -> None:
    catalogue, store = open_data(Project(root))
    for name, left in (("clinic", 2), ("both", 4)):
        version = catalogue.usable(name)
        read = rows(store, version)
        assert (read.table.num_rows, read.gone) == (left, gone(store, version))
        assert read.gone == {"clinic": 1, "both": 2}[name]
        assert subject not in read.table["patient"].to_pylist()
    run("data", "verify")
    run("ledger", "verify")
    run("data", "list")
    run("data", "export", "clinic", "-o", "../out-clinic", "--purpose", "research")
    run("data", "export", "photos", "-o", "../out-photos", "--purpose", "research")
    assert search(root.parent / "out-clinic") == search(root.parent / "out-photos") == set()
    assert pq.read_table(root.parent / "out-clinic" / "rows.parquet").num_rows == 2
