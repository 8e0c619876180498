"""All that a report says, put together from a project's books."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato._version import __version__
from sfumato.core import merkle
from sfumato.core.gate import UNDECLARED
from sfumato.core.roles import RIGHTS
from sfumato.report import activity, budgets, datasets, legal
from sfumato.report.claims import FORMAT, SOURCE, plain
from sfumato.report.sources import Sources
from sfumato.report.subject import Subject, answer

MADE_WITH = f"Sfumato {__version__}"


def collect(
    sources: Sources, *, full: int | None = activity.FULL, subject: Subject | None = None
) -> dict[str, Any]:
    """Return what the report of a project says, as plain data; the same for the same sources.

    Args:
        full: releases in full, the newest; None: all.
        subject: make the answer to one person instead.

    Raises:
        IntegrityError: a source does not verify.
    """
    found = activity.releases_of(sources.entries)
    data: dict[str, Any] = {
        "format": FORMAT,
        "kind": "subject" if subject is not None else "project",
        "extent": sources.extent.to_data(),
        "project": _project(sources),
        "populations": budgets.populations(sources.entries),
        "versions": datasets.versions(sources),
        "datasets": datasets.datasets(sources),
        "purposes": datasets.purposes(sources),
        "retention": datasets.retention(sources),
    }
    if subject is not None:
        data["subject"] = answer(sources, data, found, subject)
        for name in ("populations", "versions", "datasets"):
            del data[name]  # what is not about this person stays out
    else:
        data |= {
            "shares": budgets.shares(sources.entries),
            "door": datasets.door(sources),
            "releases": activity.releases(sources, found, full=full),
            "refusals": activity.refusals(sources),
            "erasures": activity.erasures(sources, found),
            "consent": datasets.consent(sources),
            "raises": activity.raises(sources.entries),
            "roles": _roles(sources),
        }
        data["article_30"] = legal.article_30(sources, data)
        data["california"] = legal.california(sources)
        data["hipaa"] = legal.hipaa(sources, data)
    data["integrity"] = _integrity(sources)
    data["rows"] = _cited(sources, data)
    return plain(data)


def _project(sources: Sources) -> dict[str, Any]:
    project = sources.policy.project
    return {
        "name": project.name,
        "description": project.description,
        "controller": project.controller,
        "contact": project.contact,
        "dpo": project.dpo,
        "made_with": MADE_WITH,
        "from": {"policy": "project"},
    }


def _roles(sources: Sources) -> dict[str, Any]:
    """Return the roles with how many have each; their names stay in the policy."""
    declared = next((row.seq for row in sources.entries if row.kind == "roles"), None)
    members = sources.policy.roles.members() if sources.policy.roles is not None else {}
    return {
        "declared": sources.policy.roles is not None,
        "roles": [
            {
                "role": name,
                "members": len(users),
                "rights": [right for right, (holders, _) in RIGHTS.items() if name in holders],
            }
            for name, users in members.items()
        ],
        "from": {"policy": "roles"} | ({"rows": [declared]} if declared is not None else {}),
    }


def _integrity(sources: Sources) -> dict[str, Any]:
    extent, ledger = sources.extent, sources.policy.ledger
    kinds: dict[str, int] = {}
    for row in sources.entries:
        kinds[row.kind] = kinds.get(row.kind, 0) + 1
    return {
        "ledger": extent.ledger,
        "rows": extent.rows,
        "head": extent.head,
        "merkle_root": merkle.root([row.hash for row in sources.entries]),
        "anchored": sources.ledger.anchor is not None and sources.ledger.anchor.newest() is not None,
        "witness": ledger.witness is not None,
        "witness_required": ledger.witness is not None and ledger.witness_required,
        "kinds": kinds,
        "last_at": sources.entries[-1].body.get("at", ""),
        "from": {"rows": [extent.rows]},
    }


def _cited(sources: Sources, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the ledger's rows that the report rests on by number, each with its hash."""
    cited: set[int] = {1, sources.extent.rows}
    _gather(data, cited)
    known = {*sources.policy.populations, UNDECLARED}
    return [
        {
            "row": row.seq,
            "kind": row.kind,
            "at": row.body.get("at", ""),
            "about": row.share if row.share.partition("/")[0].partition("#")[0] in known else "",
            "hash": row.hash,
            "from": {"rows": [row.seq]},
        }
        for row in sources.entries
        if row.seq in cited
    ]


def _gather(value: Any, cited: set[int]) -> None:
    if isinstance(value, Mapping):
        cited.update(value.get(SOURCE, {}).get("rows", ()))
        for item in value.values():
            _gather(item, cited)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _gather(item, cited)
