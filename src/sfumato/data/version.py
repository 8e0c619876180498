"""One immutable version of a dataset: what it holds, where it came from, whose it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sfumato.core.errors import IntegrityError
from sfumato.core.files import digest_of
from sfumato.data.store import Place

FORMAT = "sfumato-version/1"
#: Why the versions of before a vault are retired; what they held lies in a later version.
TAKEN_OVER = "moved into the vault"


@dataclass(frozen=True, slots=True)
class Item:
    """One stored thing of a version.

    Args:
        path: inside the version, with forward slashes; pseudonymous unless the policy keeps paths.
        name: of its bytes in the store.
        bytes: how many went into the store.
        home: what it was stored as, which is where a copy or a view still finds it. Its subject is whose
            it is, empty where it is about many.
        rows: of a table; 0 for a picture.
    """

    path: str
    name: str
    bytes: int
    home: Place
    rows: int = 0

    @property
    def subject(self) -> str:
        """Pseudonym of the person it is about; empty where it is about many."""
        return self.home.subject

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        home = [self.home.dataset, self.home.version, self.home.path]
        return {
            "path": self.path,
            "name": self.name,
            "bytes": self.bytes,
            "subject": self.subject,
            "home": home,
            "rows": self.rows,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Item:
        """Read it back."""
        dataset, version, path = data["home"]
        place = Place(dataset, version, path, data["subject"])
        return cls(data["path"], data["name"], data["bytes"], place, data["rows"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a version says about itself beside its items; all of it is hashed.

    Args:
        reader: which reader read it; or "copy", "view", "merge", "without" for a derived version.
        unit: column, field or rule that gives the privacy unit.
        population: declared where data came in; empty in derived versions.
        populations: whose budget it is, all lineage counted.
        purposes: what it was collected for.
        columns: (name, type) of the stored table.
        kept, dropped, generalised: what minimisation did: fields; (field, why); (column, rule).
        rows, subjects: how many; subjects is 0 where a derived version did not count them.
        tested: results of the disclosure checks.
        made_by: digest of the release's receipt, where a release made it.
        fingerprint: keyed hash of the source's bytes.
        agreed: of a version that is for one purpose alone: the purpose, and how many rows the consent
            register had when those were left out who do not agree to it.
        content: keyed hash of what entered: whose, under which name, with what kept about it.
    """

    reader: str
    unit: str
    population: str = ""
    populations: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    kept: tuple[str, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    generalised: tuple[tuple[str, str], ...] = ()
    rows: int = 0
    subjects: int = 0
    tested: dict[str, Any] = field(default_factory=dict)
    made_by: str = ""
    fingerprint: str = ""
    agreed: tuple[str, ...] = ()
    content: str = ""

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        data = {name: _plain(getattr(self, name)) for name in self.__slots__}
        if not self.agreed:
            del data["agreed"]
        return data

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Facts:
        """Read it back."""
        data = {"agreed": ()} | data
        return cls(**{name: _frozen(data[name]) for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Version:
    """A version. Its hash is over what it holds and says, not over its name, label or date.

    >>> facts = Facts(reader="csv", unit="patient", population="patients", populations=("patients",))
    >>> Version("clinic", "1", (), facts).hash == Version("other", "7", (), facts).hash
    True

    Args:
        dataset, label: what it is called.
        items: what it holds, sorted by path.
        facts: what it says about itself.
        parents: hashes of the versions it was made from.
        created: when, UTC; not hashed.
    """

    dataset: str
    label: str
    items: tuple[Item, ...]
    facts: Facts
    parents: tuple[str, ...] = ()
    created: str = ""

    @property
    def hash(self) -> str:
        """SHA-256 over the canonical JSON of items, facts and parents."""
        return digest_of(self._content())

    @property
    def spec(self) -> str:
        """How people name it: dataset@label."""
        return f"{self.dataset}@{self.label}"

    def _content(self) -> dict[str, Any]:
        items = [item.to_data() for item in self.items]
        return {"items": items, "parents": list(self.parents), "facts": self.facts.to_data()}

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        content = self._content()
        own = {"format": FORMAT, "dataset": self.dataset, "label": self.label, "created": self.created}
        return own | {"hash": digest_of(content)} | content

    @classmethod
    def from_data(cls, data: Any, *, where: str) -> Version:
        """Read a version and check it against its own hash.

        Raises:
            IntegrityError: it is no version, or was changed.
        """
        try:
            if data["format"] != FORMAT:
                raise KeyError("format")
            version = cls(
                data["dataset"],
                data["label"],
                tuple(Item.from_data(item) for item in data["items"]),
                Facts.from_data(data["facts"]),
                tuple(data["parents"]),
                data["created"],
            )
            claimed = data["hash"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityError(
                f"{where} does not hold a dataset version ({error!r}): restore it"
            ) from error
        if version.hash != claimed:
            raise IntegrityError(f"{where} was changed: its hash does not match what it says. Restore it.")
        return version


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
