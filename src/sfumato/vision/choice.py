"""Choosing a detector for each class, among those installed.

A detector's module may state `FINDS`, the classes of its published weights, so that it can be chosen without
being built. A module without it is built to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core.errors import InvalidRequest, MissingExtra, MissingModel, UnknownName, nearest
from sfumato.vision.detectors import CATALOGUE, Detector

_VEHICLES = ("car", "truck", "bus", "motorcycle", "bicycle")

#: Words that people say -> the classes that they mean.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "people": ("person",),
    "persons": ("person",),
    "pedestrian": ("person",),
    "pedestrians": ("person",),
    "faces": ("face",),
    "vehicle": _VEHICLES,
    "vehicles": _VEHICLES,
    "cars": ("car",),
    "plates": ("plate",),
    "license plate": ("plate",),
    "licence plate": ("plate",),
    "screen": ("tv", "laptop", "cell phone"),
    "screens": ("tv", "laptop", "cell phone"),
    "document": ("book",),
    "documents": ("book",),
    "code": ("qr code", "barcode"),
    "codes": ("qr code", "barcode"),
    "qr": ("qr code",),
}

#: Best first, by what was measured (docs/guarantees/models.md); third parties come after, by name.
PREFERENCE = ("centerface", "yunet", "yolo26", "text", "plates", "codes")


def _rank(name: str) -> int:
    """Return a detector's place in the order of preference."""
    return PREFERENCE.index(name) if name in PREFERENCE else len(PREFERENCE)


def expand(word: str) -> tuple[str, ...]:
    """Return the classes that an alias stands for; nothing when it is no alias."""
    return ALIASES.get(word, ())


def known_classes() -> tuple[str, ...]:
    """Return every class that published weights of the catalogue find; nothing is built for this."""
    return tuple(dict.fromkeys(label for name in CATALOGUE.names for label in _states(name) or ()))


def _states(name: str) -> tuple[str, ...] | None:
    """Return the classes that a detector's module states, or None where it states nothing."""
    finds = getattr(CATALOGUE.load(name).module, "FINDS", None)
    return None if finds is None else tuple(finds)


def unknown_class(word: str, own: Sequence[str] = (), *, hint: str = "") -> UnknownName:
    """Return the error for a class that nothing could find; `own` are classes of weights given by hand."""
    usual = {"face", "person", *own, *ALIASES, *_VEHICLES}
    if nearest(word, usual):  # "fase" is a face, though "vase" is as near
        return UnknownName(
            "class", word, usual, hint=f"{hint} Every class: sfumato models list --json".strip()
        )
    return UnknownName("class", word, {*known_classes(), *usual}, hint=hint)


class Bench:
    """The detectors at hand for one request, each built at most once."""

    def __init__(
        self, forced: Sequence[str], models: Mapping[str, Any], size: int | None, threads: int
    ) -> None:
        for name in (*forced, *models):
            if name not in CATALOGUE.names:
                raise UnknownName("detector", name, CATALOGUE.names)
        self.forced = tuple(dict.fromkeys(forced))
        self.models = {name: Path(path) for name, path in models.items()}
        self.size, self.threads = size, threads
        self.missing: dict[str, str] = {}
        self._built: dict[str, Detector] = {}

    @property
    def own(self) -> list[str]:
        """Every class that the detectors built so far find."""
        return [label for one in self._built.values() for label in one.finds]

    def build(self, name: str) -> Detector:
        """Build one detector, or return the one built before."""
        if name not in self._built:
            uses = getattr(CATALOGUE.load(name).module, "USES", ())
            others = {one: path for one, path in self.models.items() if one in uses}
            more = {"others": others} if uses else {}
            self._built[name] = CATALOGUE.build(
                name, model=self.models.get(name), size=self.size, threads=self.threads, **more
            )
        return self._built[name]

    def roles(self, words: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return detector name -> the classes it is asked for, so that every word is served.

        Raises:
            UnknownName: nothing could ever find a word.
            MissingModel: something could, but its weights are not here.
            InvalidRequest: a forced detector finds none of the words.
        """
        roles: dict[str, list[str]] = {}
        for word in words:
            served = {word: self._finding(word)}
            if not served[word]:
                served = {label: self._finding(label) for label in expand(word)}
            if not any(served.values()):
                raise self._refusal(word)
            for label, names in served.items():
                for name in names:
                    roles.setdefault(name, []).append(label)
        for name in self.forced:
            if name not in roles:
                can = ", ".join(self.build(name).finds)
                raise InvalidRequest(
                    f"the detector {name!r} was asked for, but it finds none of {', '.join(words)}; it "
                    f"finds: {can}. Leave it out, or hide something that it finds."
                )
        return {name: tuple(dict.fromkeys(labels)) for name, labels in roles.items()}

    def _finding(self, label: str) -> list[str]:
        """Return the detectors to ask for one class: all those forced, else the best one installed."""
        if chosen := [name for name in self.forced if label in self.build(name).finds]:
            return chosen
        for name in self._order(label):
            if label in self._finds(name):
                return [name]
        return []

    def _order(self, label: str) -> Iterator[str]:
        """Yield detectors worth trying for a class, best first."""
        names = sorted(CATALOGUE.names, key=lambda name: (_rank(name), name))
        likely = [name for name in names if label in (_states(name) or ())]
        yield from (name for name in likely if name in self.models)
        yield from (name for name in likely if name not in self.models)
        for name in names:  # weights given by hand may find other things; a silent module must be asked
            if name not in likely and (name in self.models or _states(name) is None):
                yield name

    def _finds(self, name: str) -> tuple[str, ...]:
        """Return what an installed detector finds; nothing where its weights or packages are absent."""
        try:
            return tuple(self.build(name).finds)
        except (MissingModel, MissingExtra) as error:
            if name in self.models or name in self.forced:
                raise
            self.missing[name] = str(error)
            return ()

    def _refusal(self, word: str) -> InvalidRequest:
        """Return the error for a word that nothing installed finds."""
        wanted = {word, *expand(word)}
        able = [name for name in CATALOGUE.names if wanted & set(_states(name) or ())]
        if able:
            ways = " ".join(
                self.missing[name] if name in self.missing else self._others(name) for name in able
            )
            return MissingModel(f"no installed model finds {word!r}; {' or '.join(able)} would. {ways}")
        return unknown_class(word, self.own)

    def _others(self, name: str) -> str:
        """Say why a detector that could find a class does not: its weights are for other classes."""
        return f"The weights given for {name} find only: {', '.join(self.build(name).finds)}."
