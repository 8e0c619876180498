"""A catalogue, a store, a policy, some sources; and vaults opened by a key file, since scrypt is slow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sfumato.core.policy import Policy
from sfumato.core.project import Project
from sfumato.data.add import Added, add
from sfumato.data.catalogue import Catalogue
from sfumato.data.door import Request
from sfumato.data.store import PlainStore
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access
from sfumato.redaction.images.strip import stripped

POLICY = """
[project]
name = "test"
[purposes.research]
actions = ["export"]
[purposes.care]
[populations.patients]
unit = "patient"
epsilon = 1
[populations.staff]
unit = "person"
epsilon = 1
[datasets.clinic]
keep = ["born", "postcode", "age", "diagnosis"]
unit = "patient"
population = "patients"
purposes = ["research"]
quasi_identifiers = ["born", "postcode", "age"]
sensitive = ["diagnosis"]
[datasets.clinic.generalise]
born = "year"
postcode = "prefix 2"
age = "band 10"
"""

VISITS = """\
patient,name,born,postcode,age,diagnosis
007,Ann Example,1984-05-17,01234,40,flu
008,Bob Example,1984-06-01,01299,41,cold
007,Ann Example,1984-05-17,01234,40,cold
009,Cy Example,1950-01-01,99999,74,flu
"""


@dataclass
class Room:
    folder: Path
    catalogue: Catalogue
    store: PlainStore
    policy: Policy

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def add(self, dataset: str, path: Path, **options) -> Added:
        request = Request(dataset=dataset, path=path, **options)
        return add(self.catalogue, self.store, self.policy, request, strip=stripped)

    def stored(self) -> bytes:
        """All bytes that lie in the catalogue and the store."""
        roots = (self.catalogue.root, self.store.root)
        return b"\0".join(p.read_bytes() for root in roots for p in sorted(root.rglob("*")) if p.is_file())


@pytest.fixture
def room(tmp_path: Path) -> Room:
    inside = tmp_path / ".sfumato"
    return Room(
        tmp_path, Catalogue(inside / "catalogue"), PlainStore(inside / "objects"), Policy.parse(POLICY)
    )


@pytest.fixture
def visits(room: Room) -> Path:
    return room.write("visits.csv", VISITS)


@pytest.fixture
def pictures(room: Room) -> Path:
    """Two people's pictures, with a place and a name in their metadata."""
    import numpy as np
    from PIL import Image

    for index, name in enumerate(("ann/1.jpg", "ann/2.jpg", "bob/1.jpg", "bob/deep/3.png")):
        path = room.folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((12, 16, 3), 40 * index, np.uint8)
        pixels[3:6, 2:9] = 255
        exif = Image.Exif()
        exif[0x010E] = "Ann at 12 Example Street"
        Image.fromarray(pixels).save(path, exif=exif)
    (room.folder / "photos" / "notes.txt").write_text("Ann was here")
    (room.folder / "photos" / ".hidden.jpg").write_bytes(b"x")
    return room.folder / "photos"


VAULT_POLICY = """
[project]
name = "clinic"
[purposes.research]
actions = ["redact"]
"""


@pytest.fixture
def outside(tmp_path: Path) -> Access:
    """A key file outside the project."""
    return Access(options={"path": str(tmp_path / "outside" / "master.key")})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    Project.init(tmp_path / "project").ledger.close()
    (tmp_path / "project" / "sfumato.toml").write_text(VAULT_POLICY)
    return Project(tmp_path / "project")


@pytest.fixture
def vault(project: Project, outside: Access) -> Vault:
    return Vault.init(project.root, "file", outside)


@pytest.fixture
def found() -> Callable[[Path, bytes], list[str]]:
    """Return the files under a folder that hold some bytes, as they are or as hex."""

    def search(folder: Path, needle: bytes) -> list[str]:
        forms = (needle, needle.hex().encode(), needle.hex().upper().encode())
        return [
            str(path.relative_to(folder))
            for path in sorted(folder.rglob("*"))
            if path.is_file() and any(form in path.read_bytes() for form in forms)
        ]

    return search
