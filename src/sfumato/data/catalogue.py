"""The catalogue: every version of every dataset, as files that are written once."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.core.errors import IntegrityError, InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.files import write_whole
from sfumato.data.lock import held, locked, take
from sfumato.data.people import People, people_beside, people_of
from sfumato.data.version import Facts, Item, Version

if TYPE_CHECKING:
    from sfumato.core.project import Project
    from sfumato.data.recording import Recorder

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FOLDER = "catalogue"
OBJECTS = "objects"
LOCK = "lock"
#: The label of a version for one purpose: of which version, and its number.
CUT = re.compile(r"(\d+)w(\d+)")
#: Why the versions of before a vault are retired; what they held lies in a later version.
TAKEN_OVER = "moved into the vault"


class Catalogue:
    """The versions of a project's datasets, under one folder.

    A version's hash covers keyed pseudonyms and a keyed hash of its source: whoever lacks the project's
    pseudonym key cannot test a guess at its contents by it, where the store is a vault.

    Safe under concurrent adds: a label is claimed by creating a file that must not exist, and a version
    appears whole. A crash leaves at most an unused label.

    >>> import tempfile
    >>> catalogue = Catalogue(Path(tempfile.mkdtemp()))
    >>> with catalogue.claim("clinic") as label:
    ...     facts = Facts(reader="csv", unit="patient", population="patients", populations=("patients",))
    ...     version = catalogue.write(Version("clinic", label, (), facts))
    >>> catalogue.find("clinic@1").hash == version.hash
    True

    Args:
        root: the folder of the versions.
        people: who names people; None: by the key beside the folder.
        recorder: writes versions into the ledger; None: they are recorded when the data is next opened.
    """

    def __init__(self, root: Path, people: People | None = None, recorder: Recorder | None = None) -> None:
        self.root, self._recorder = root, recorder
        self.people = people or people_beside(root.parent)

    @classmethod
    def of(cls, project: Project) -> Catalogue:
        """Return a project's catalogue to look at; `sfumato.data.opening` opens it with the store."""
        return cls(project.root / ".sfumato" / FOLDER, people_of(project))

    def names(self) -> tuple[str, ...]:
        """Return the datasets that have a version, sorted."""
        return tuple(sorted({path.parent.name for path in self.root.glob("*/*.json")}))

    def versions(self, dataset: str, *, cuts: bool = False) -> tuple[Version, ...]:
        """Return a dataset's versions, oldest first.

        Args:
            cuts: with those for one purpose, which people left who do not agree to it ("2w1": of version 2).
                They stand beside the line of versions: nobody else sees that somebody left.

        Raises:
            UnknownName: no such dataset.
            IntegrityError: one was changed.
        """
        folder = self.root / _checked(dataset)
        labels = sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())
        if not labels:
            raise UnknownName("dataset", dataset, self.names())
        names = [str(label) for label in labels]
        if cuts:
            found = [match for path in folder.glob("*.json") if (match := CUT.fullmatch(path.stem))]
            found.sort(key=lambda match: (int(match[1]), int(match[2])))
            names += [match[0] for match in found]
        return tuple(self._read(folder / f"{name}.json") for name in names)

    def at(self, dataset: str, label: str) -> Version | None:
        """Return one version; None where there is none.

        Raises:
            IntegrityError: it was changed.
        """
        path = self.root / _checked(dataset) / f"{label}.json"
        return self._read(path) if path.exists() else None

    def all(self) -> Iterator[Version]:
        """Iterate over every version of every dataset."""
        for name in self.names():
            yield from self.versions(name, cuts=True)

    def find(self, spec: str) -> Version:
        """Return a version by "NAME" (the newest one), "NAME@LABEL" or "NAME@HASH" (6 digits or more).

        Raises:
            UnknownName, InvalidRequest: there is no such version, or more than one.
        """
        dataset, _, which = spec.partition("@")
        versions = self.versions(dataset)
        if not which:
            if "@" in spec:
                raise InvalidRequest(f"{spec!r} names no version after the @: write NAME@LABEL, or NAME")
            return versions[-1]
        versions = self.versions(dataset, cuts=True)
        for version in versions:
            if version.label == which:
                return version
        found = {version.hash: version for version in versions if version.hash.startswith(which.lower())}
        if len(which) >= 6 and len(found) == 1:
            return next(iter(found.values()))
        if len(which) >= 6 and found:
            raise InvalidRequest(f"{spec!r} fits {len(found)} versions: write more of the hash")
        raise UnknownName(f"version of {dataset}", which, [version.label for version in versions])

    def by_hash(self, digest: str) -> Version:
        """Return a version by its whole hash, of whatever dataset.

        Raises:
            IntegrityError: it is not here, and something refers to it.
        """
        for version in self.all():
            if version.hash == digest:
                return version
        raise IntegrityError(f"version {digest[:16]} is missing from the catalogue: restore it")

    def usable(self, spec: str) -> Version:
        """Return a version that was not retired; without a label, the newest such.

        Raises:
            PolicyRefused: it was retired.
        """
        version = self.find(spec)
        if "@" not in spec:
            for candidate in reversed(self.versions(version.dataset)):
                if self.retired(candidate) is None:
                    return candidate
        reason = self.retired(version)
        if reason is not None:
            raise PolicyRefused(
                f"{spec} was retired ({reason}) and may not be used any more. "
                f"See: sfumato data versions {version.dataset}"
            )
        return version

    def claim(self, dataset: str, *, cut_of: str = "") -> Claim:
        """Return a context that holds a label nobody else will get.

        Args:
            cut_of: a label; the claimed one names a cut of it, such as "2w1" of "2".
        """
        return Claim(self.root / _checked(dataset), f"{cut_of.partition('w')[0]}w" if cut_of else "")

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Hold off everybody who would add or derive a version.

        Raises:
            InvalidRequest: somebody is at it.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.root / LOCK):
            for path in sorted(self.root.glob("*/*.claim")):
                if held(path):
                    raise InvalidRequest(
                        f"a version of {path.parent.name} is being added now: wait until it is there"
                    )
                path.unlink(missing_ok=True)  # whoever claimed it was killed
            yield

    def write(self, version: Version) -> Version:
        """Write a version for good.

        Raises:
            InvalidRequest: the label is taken.
            IntegrityError: its populations are not those of its lineage.
        """
        from sfumato.data.lineage import check_populations

        path = self.root / _checked(version.dataset) / f"{version.label}.json"
        if path.exists():
            raise InvalidRequest(f"{version.spec} exists, and versions never change: claim a new label")
        check_populations(self, version)
        write_whole(path, json.dumps(version.to_data(), allow_nan=False) + "\n", mode=0o600)
        if self._recorder is not None and self._recorder.allowed:
            self._recorder.version(version)
        return version

    def add(
        self, dataset: str, label: str, items: Sequence[Item], facts: Facts, parents: Sequence[Version]
    ) -> Version:
        """Write the next version of a dataset under a claimed label."""
        ordered = tuple(sorted(items, key=lambda item: item.path))
        twice = [a.path for a, b in itertools.pairwise(ordered) if a.path == b.path]
        if twice:
            raise InvalidRequest(f"two items of {dataset} have the path {twice[0]!r}")
        created = datetime.now(UTC).isoformat(timespec="seconds")
        hashes = tuple(dict.fromkeys(parent.hash for parent in parents))
        return self.write(Version(dataset, label, ordered, facts, hashes, created))

    def retire(self, version: Version, reason: str) -> None:
        """Mark a version as no longer usable; it stays, and so do its children.

        Raises:
            InvalidRequest: no reason, or it is retired already.
        """
        if not reason.strip():
            raise InvalidRequest("a version is retired for a reason, and none was given")
        if self.retired(version) is not None:
            raise InvalidRequest(f"{version.spec} was retired before: {self.retired(version)}")
        note = {"hash": version.hash, "reason": reason, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        write_whole(self._note(version), json.dumps(note) + "\n", mode=0o600)
        if self._recorder is not None and self._recorder.allowed:
            self._recorder.retired(version)

    def retired(self, version: Version) -> str | None:
        """Return why a version was retired; None where it was not."""
        path = self._note(version)
        if not path.exists():
            return None
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["reason"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{path} does not say why {version.spec} was retired") from error

    def _note(self, version: Version) -> Path:
        return self.root / _checked(version.dataset) / f"{version.label}.retired"

    def _read(self, path: Path) -> Version:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise IntegrityError(f"{path} does not read as a dataset version: restore it") from error
        version = Version.from_data(data, where=str(path))
        if (version.dataset, version.label) != (path.parent.name, path.stem):
            raise IntegrityError(f"{path} holds {version.spec}: it was moved here. Put it back.")
        return version


class Claim:
    """A label taken by creating a file that must not exist; freed on the way out."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self._folder, self._prefix = folder, prefix
        self._path: Path | None = None
        self._handle = -1

    def __enter__(self) -> str:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self._folder.parent / LOCK):
            return self._take()

    def _take(self) -> str:
        numbers = [path.stem.removeprefix(self._prefix) for path in self._there()]
        number = 1 + max((int(one) for one in numbers if one.isdecimal()), default=0)
        while True:
            label = f"{self._prefix}{number}"
            path = self._folder / f"{label}.claim"
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            except FileExistsError:
                number += 1
                continue
            if not (self._folder / f"{label}.json").exists():
                take(handle)  # as long as it is held, somebody is at work
                self._path, self._handle = path, handle
                return label
            os.close(handle)
            path.unlink()  # the version was written, and its claim freed, between the look and the claim
            number += 1

    def _there(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if path.stem.startswith(self._prefix)]

    def __exit__(self, *error: object) -> None:
        if self._path is not None:
            os.close(self._handle)
            self._path.unlink(missing_ok=True)
        if error[0] is not None and not any(self._folder.iterdir()):
            self._folder.rmdir()


def _checked(dataset: str) -> str:
    if not NAME.fullmatch(dataset):
        raise InvalidRequest(
            f"a dataset's name has up to 100 letters, digits, dots, dashes and underscores and begins with a "
            f"letter or digit, got {dataset[:120]!r}"
        )
    return dataset
