"""A project with a vault, and ways to redact with sealing there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from sfumato.core.project import Project
from sfumato.data.vault import Vault
from sfumato.data.wrapping import Access
from sfumato.redaction.result import Run
from sfumato.redaction.run import Options, run_files
from sfumato.redaction.sealed.restore import Order, restore
from sfumato.redaction.sealed.room import Room, Wish
from sfumato.redaction.settings import Settings
from sfumato.vision.finder import Finder
from sfumato.vision.toy import ToyDetector

POLICY = """
[purposes.teaching]
actions = ["redact"]
[purposes.court]
lawful_basis = "legal obligation"
actions = ["redact", "restore"]
"""


class Place:
    """One project with a vault, and what is done in it."""

    def __init__(self, root: Path, policy: str = POLICY) -> None:
        self.root, self.outside = root, root.parent / f"{root.name}-outside"
        Project.init(root, name="demo", forget=True).close()
        with (root / "sfumato.toml").open("a") as file:
            file.write(policy)
        self.access = Access(options={"path": str(self.outside / "master.key")})
        Vault.init(root, "file", self.access)

    def redact(self, source: Path, target: Path, request: Any = None, **options: Any) -> Run:
        seal = options.pop("seal", Wish())
        finder = lambda settings: Finder([ToyDetector()], settings.hide)  # noqa: E731
        chosen = Options(purpose="teaching", report=False, seal=seal, **options)
        return run_files(source, target, request or Settings(), options=chosen, finder=finder)

    def room(self, **wish: Any) -> Room:
        return Room.of(Project(self.root), Wish(**wish))

    def restore(self, output: Path, target: Path, *, actor: Any = None, **order: Any) -> Any:
        project = Project(self.root)
        wish = Order(**({"reason": "order 12/3", "purpose": "court"} | order))
        try:
            return restore(self.room(), project.gate(actor=actor), output, target, wish)
        finally:
            project.close()

    @property
    def sealed(self) -> list[Path]:
        return sorted((self.root / ".sfumato" / "sealed").glob("*.sealed"))

    def rows(self) -> list[Any]:
        project = Project(self.root)
        try:
            return list(project.ledger.entries())
        finally:
            project.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path / "project")
    monkeypatch.chdir(place.root)
    return place


@pytest.fixture
def other(tmp_path: Path) -> Place:
    """Another project, with another vault."""
    return Place(tmp_path / "other")


Frames = list[list[NDArray[Any]]]


@pytest.fixture(scope="session")
def planes_of() -> Callable[[Path, str], Frames]:
    """Return a function that gives the planes of every frame of a video."""
    from sfumato.redaction.videos.frames import planes

    def read(path: Path, pix_fmt: str = "yuv420p") -> Frames:
        with av.open(str(path)) as container:
            frames = [
                f if f.format.name == pix_fmt else f.reformat(format=pix_fmt)
                for f in container.decode(video=0)
            ]
            return [[np.array(plane) for plane in planes(frame)] for frame in frames]

    return read


@pytest.fixture
def filmed(place: Place, clip: Callable[..., Path]) -> tuple[Path, Path]:
    """A sealed video and what it was made from."""
    source = clip("hall.mp4", frames=30, audio=["aac"])
    shutil.move(source, place.root / "hall.mp4")
    place.redact(place.root / "hall.mp4", place.root / "safe.mp4")
    return place.root / "hall.mp4", place.root / "safe.mp4"
