"""What data there is, whose, under which purposes; what was dropped at the door; what is due."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from sfumato.core.book import Entry
from sfumato.core.consent_csv import GIVEN, WITHDRAWN
from sfumato.core.dataset_policy import DatasetSection
from sfumato.data.age import over_since
from sfumato.data.catalogue import Catalogue
from sfumato.data.version import Version
from sfumato.report.sources import Sources

NEVER = "no limit in the policy"


def versions(sources: Sources) -> list[dict[str, Any]]:
    """Return every version: what it holds, whose it is, where it came from."""
    recorded = {
        (row.kind, str(row.body.get("dataset")), str(row.body.get("label"))): row
        for row in sources.entries
        if row.kind in ("version", "retired")
    }
    named = {one.hash: one.spec for one in sources.versions}
    result = []
    for one in sources.versions:
        facts = one.facts
        row, gone = (recorded.get((kind, one.dataset, one.label)) for kind in ("version", "retired"))
        rows = [found.seq for found in (row, gone) if found is not None]
        result.append(
            {
                "version": one.spec,
                "hash": one.hash,
                "created": one.created,
                "reader": facts.reader,
                "unit": facts.unit,
                "populations": list(facts.populations),
                "purposes": list(facts.purposes),
                "rows_held": facts.rows,
                "items": len(one.items),
                "subjects": facts.subjects,
                "parents": [named.get(parent, parent[:16]) for parent in one.parents],
                "retired": sources.retired(one) or (gone.body["at"] if gone is not None else ""),
                "retired_for": str(gone.body.get("why", "")) if gone is not None else "",
                "recorded": row is not None,
                "from": {"version": one.hash} | ({"rows": rows} if rows else {}),
            }
        )
    return result


def door(sources: Sources) -> list[dict[str, Any]]:
    """Return what minimisation did to each version that came in, and what the tests of the rest said."""
    return [
        {
            "version": one.spec,
            "kept": list(one.facts.kept),
            "dropped": [{"field": name, "why": why} for name, why in one.facts.dropped],
            "generalised": [{"field": name, "rule": rule} for name, rule in one.facts.generalised],
            "tested": _tested(one),
            "from": {"version": one.hash},
        }
        for one in sources.versions
        if one.facts.kept or one.facts.dropped or one.facts.tested
    ]


def _tested(version: Version) -> dict[str, Any]:
    result = version.facts.tested
    if not result:
        return {}
    values = {name: f"{value:.3f}" for name, value in result.get("t", {}).items()}
    known = ("k", "groups", "groups_of_one", "l", "limits")
    return {name: result[name] for name in known if name in result} | {
        "t": values,
        "quasi_identifiers": list(result.get("quasi_identifiers", ())),
    }


def datasets(sources: Sources) -> list[dict[str, Any]]:
    """Return every dataset of the policy or the catalogue, with what the policy says of it."""
    names = dict.fromkeys([*sources.policy.datasets, *(one.dataset for one in sources.versions)])
    result = []
    for name in names:
        section = sources.policy.datasets.get(name, DatasetSection())
        mine = [one for one in sources.versions if one.dataset == name]
        days = sources.policy.retention.days_of(name)
        result.append(
            {
                "name": name,
                "declared": name in sources.policy.datasets,
                "population": section.population,
                "unit": section.unit,
                "purposes": list(section.purposes),
                "categories": list(section.categories),
                "source": section.source,
                "keep": list(section.keep),
                "generalise": {column: str(rule) for column, rule in section.generalise.items()},
                "retention_days": days if days is not None else NEVER,
                "versions": len(mine),
                "from": {"policy": f"datasets.{name}"} | ({"version": mine[-1].hash} if mine else {}),
            }
        )
    return result


def purposes(sources: Sources) -> list[dict[str, Any]]:
    """Return the purposes of the policy, and whether each still runs."""
    today = sources.at.date()
    return [
        {
            "name": name,
            "description": purpose.description,
            "lawful_basis": purpose.lawful_basis,
            "actions": list(purpose.actions),
            "expires": purpose.expires.isoformat() if purpose.expires else "",
            "expired": purpose.expires is not None and today > purpose.expires,
            "roles": list(purpose.roles),
            "compatible_with": list(purpose.compatible_with),
            "recipients": list(purpose.recipients),
            "transfers": purpose.transfers,
            "datasets": [key for key, one in sources.policy.datasets.items() if name in one.purposes],
            "from": {"policy": f"purposes.{name}"},
        }
        for name, purpose in sources.policy.purposes.items()
    ]


def retention(sources: Sources) -> dict[str, Any]:
    """Return what the policy says on how long, what is due by it, and what was ended."""
    rule = sources.policy.retention
    due: list[dict[str, Any]] = []
    coming: list[dict[str, Any]] = []
    everything = tuple(Catalogue.of(sources.project).all())
    for one in sources.versions:
        if sources.retired(one) or (over := over_since(sources.policy, everything, one)) is None:
            continue
        end, days = over
        record = {
            "version": one.spec,
            "days": days,
            "end": end.isoformat(timespec="seconds"),
            "from": {"version": one.hash, "policy": "retention"},
        }
        (due if end <= sources.at else coming).append(record)
    ended = [
        {
            "version": f"{row.body['dataset']}@{row.body['label']}",
            "at": row.body["at"],
            "from": {"rows": [row.seq]},
        }
        for row in sources.entries
        if row.kind == "retired" and row.body.get("why") == "retention"
    ]
    logged: dict[str, list[dict[str, Any]]] = {}
    for line in sources.ended_by_retention():
        logged.setdefault(line["dataset"], []).append(line)
    return {
        "days": rule.days if rule.days is not None else NEVER,
        "datasets": dict(rule.datasets),
        "due": sorted(due, key=lambda record: str(record["end"])),
        "coming": sorted(coming, key=lambda record: str(record["end"])),
        "ended": ended,
        "logged": [
            {
                "dataset": name,
                "count": len(lines),
                "last": lines[-1]["at"],
                "from": {"line of the retention log": lines[-1]["line"]},
            }
            for name, lines in sorted(logged.items())
        ],
        "from": {"policy": "retention"},
    }


def consent(sources: Sources) -> list[dict[str, Any]]:
    """Return how many people's consent stands and was withdrawn, by purpose; as `Register.counts` has it."""
    state: dict[str, dict[str, tuple[date, str]]] = {}
    newest: dict[str, int] = {}
    for row in consent_rows(sources.consents):
        purpose, _, name = row.share.rpartition("/")
        day = date.fromisoformat(row.body["date"])
        people = state.setdefault(purpose, {})
        if day >= people.get(name, (date.min, ""))[0]:
            people[name] = (day, row.kind)
        newest[purpose] = row.seq
    known = sources.policy.purposes
    return [
        {
            "purpose": purpose if purpose in known else "a purpose that the policy no longer names",
            "asked": purpose in known and known[purpose].lawful_basis == "consent",
            "given": sum(now == GIVEN for _, now in people.values()),
            "withdrawn": sum(now == WITHDRAWN for _, now in people.values()),
            "from": {"consent": [newest[purpose]]},
        }
        for purpose, people in sorted(state.items())
    ]


def consent_rows(rows: Sequence[Entry]) -> list[Entry]:
    """Return the rows that give or withdraw."""
    return [row for row in rows if row.kind in (GIVEN, WITHDRAWN)]
