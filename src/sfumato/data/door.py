"""The door: what of a source may enter, decided before anything is read whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core.dataset_policy import DatasetSection
from sfumato.core.errors import InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.policy import Policy
from sfumato.data.unit import UnitRule

#: What no policy can keep of a picture.
FILE_METADATA = "metadata inside the picture files (EXIF, place, time, camera, comments, thumbnails)"

#: Which names of dropped fields a version remembers, and at most how many.
PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")
MOST_NAMES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody asks to add.

    Args:
        dataset: name of the dataset; a name that exists gets its next version.
        path: the source; it is read and never changed.
        unit: column, field or rule; default: the policy's.
        population: whose budget it is; default: the policy's.
        keep: fields to keep; default: the policy's. It may name fewer than the policy, never more.
        reader: name of a reader; default: the one that knows the path.
    """

    dataset: str
    path: Path
    unit: str = ""
    population: str = ""
    keep: tuple[str, ...] = ()
    reader: str = ""


@dataclass(frozen=True, slots=True)
class Minimised:
    """What becomes of each field of a source: (field, why) or (field, rule)."""

    kept: tuple[str, ...]
    dropped: tuple[tuple[str, str], ...]
    generalised: tuple[tuple[str, str], ...]

    def to_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "kept": list(self.kept),
            "dropped": [{"field": field, "why": why} for field, why in self.dropped],
            "generalised": [{"field": field, "rule": rule} for field, rule in self.generalised],
        }


def rules_of(policy: Policy, request: Request) -> DatasetSection:
    """Return the policy's rules for a dataset, as narrowed by the request.

    Raises:
        PolicyRefused: the request would keep more, or change the unit or population.
        UnknownName: a population that the policy does not declare.
        InvalidRequest: no unit.
    """
    stated = policy.datasets.get(request.dataset)
    section = stated or DatasetSection(keep=request.keep)
    where = f"datasets.{request.dataset}"
    for key in ("unit", "population"):
        asked, ruled = getattr(request, key), getattr(section, key)
        if asked and ruled and asked != ruled:
            raise PolicyRefused(
                f"asked: {key} {asked!r}; the rule {where}.{key} in sfumato.toml says {ruled!r}"
            )
    if more := [name for name in request.keep if name not in section.keep]:
        raise PolicyRefused(
            f"asked: to keep {more[0]!r}; the rule {where}.keep in sfumato.toml allows: "
            f"{', '.join(section.keep) or 'nothing'}"
        )
    keep = request.keep or section.keep
    population = request.population or section.population
    if population and population not in policy.populations:
        raise UnknownName(
            "population", population, policy.populations, hint="Declare it in sfumato.toml first."
        )
    rule = UnitRule(request.unit or section.unit)
    return section.model_copy(
        update={
            "unit": rule.text,
            "population": population,
            "keep": keep,
            "generalise": {name: rule for name, rule in section.generalise.items() if name in keep},
            "quasi_identifiers": tuple(name for name in section.quasi_identifiers if name in keep),
            "sensitive": tuple(name for name in section.sensitive if name in keep),
        }
    )


def minimise(fields: Sequence[str], rules: DatasetSection, dataset: str, *, pictures: bool) -> Minimised:
    """Decide what becomes of each field.

    Guarantee (heuristic):
        What is not on the keep list does not enter; the unit's own field never does. What is kept can still
        identify people, in columns and in pixels.

    Raises:
        UnknownName: the keep list or the unit names a field that is not there.
        InvalidRequest: nothing would be left of a table, or a kept path holds what identifies the person.
    """
    for name in rules.keep:
        if name not in fields:
            raise UnknownName("field to keep", name, fields)
    if not (pictures and UnitRule(rules.unit).is_rule) and rules.unit not in fields:
        raise UnknownName("unit column", rules.unit, fields)
    kept = tuple(name for name in rules.keep if name != rules.unit)
    _refuse_raw_ids(kept, rules.unit, dataset, pictures)
    if not kept and not pictures:
        others = ", ".join(name for name in fields if name != rules.unit)
        raise InvalidRequest(
            f"nothing would be left: the keep list of {dataset!r} names no column. In sfumato.toml write, "
            f'for example, [datasets.{dataset}] keep = ["..."], or use --keep. Columns: {others or "none"}.'
        )
    for name in rules.generalise:
        if name == rules.unit:
            raise InvalidRequest(
                f"{name!r} is the unit and becomes a pseudonym: it cannot be generalised too"
            )
    dropped = [
        (name, "the privacy unit: replaced by a keyed pseudonym")
        if name == rules.unit
        else (name, f"not on the keep list of datasets.{dataset}")
        for name in fields
        if name not in kept
    ]
    if pictures:
        dropped.append((FILE_METADATA, "never kept: pictures are written again from their pixels"))
    generalised = [(name, str(rule)) for name, rule in rules.generalise.items()]
    return Minimised(kept, tuple(dropped), tuple(generalised))


def _refuse_raw_ids(kept: Sequence[str], unit: str, dataset: str, pictures: bool) -> None:
    """Refuse to keep the place that the unit is read from: it would stand beside its own pseudonym."""
    if pictures and UnitRule(unit).is_rule and "path" in kept:
        raise InvalidRequest(
            f"the unit of {dataset!r} is {unit!r}, which is read from the path of each picture, and the keep "
            "list names 'path': people's ids would be stored beside their pseudonyms. Take 'path' off the "
            "keep list; or, if a path identifies nobody, give the unit by a field, such as patient_id in a "
            "COCO file."
        )


def remembered(dropped: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return what a version remembers of the dropped fields: in a wide table their names can be personal.

    Names stay where they look like plain identifiers and are few; of the others, how many there were.
    """
    plain = [pair for pair in dropped if pair[0] == FILE_METADATA or PLAIN_NAME.fullmatch(pair[0])]
    told = plain if len(plain) <= MOST_NAMES else [pair for pair in plain if pair[0] == FILE_METADATA]
    why = Counter(pair[1] for pair in dropped if pair not in told)
    counted = [(f"({count} fields, whose names are not kept)", reason) for reason, count in why.items()]
    return (*told, *counted)
