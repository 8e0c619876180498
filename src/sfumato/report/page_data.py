"""The sections on the data, their purposes, the door, retention and consent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.report.html import Html, el, join, listed, section, table, when, word, words


def data(report: Mapping[str, Any]) -> Html:
    """Return what data there is, and whose."""
    sets = [
        (
            (
                word(one["name"]),
                word(one["population"]),
                word(one["unit"]),
                words(one["categories"], "not declared"),
                words(one["purposes"]),
                word(one["source"]),
                str(one["versions"]),
            ),
            one,
            f"datasets.{index}",
        )
        for index, one in enumerate(report["datasets"])
    ]
    versions = [
        (
            (
                word(one["version"]),
                when(one["created"]),
                _size(one),
                words(one["populations"]),
                word(one["unit"]),
                join([word(one["reader"]), _parents(one)]),
                _state(one),
            ),
            one,
            f"versions.{index}",
        )
        for index, one in enumerate(report["versions"])
    ]
    return section(
        "data",
        "What data, and whose",
        table(
            "Datasets",
            ("Dataset", "Population", "Unit", "Categories", "Given for", "Obtained from", "Versions"),
            sets,
        ),
        table(
            "Versions, none of which ever changes",
            ("Version", "Since (UTC)", "Holds", "Populations", "Unit", "Made by", "State"),
            versions,
        ),
    )


def _size(one: Mapping[str, Any]) -> str:
    parts = [(one["rows_held"], "rows"), (one["items"], "stored items"), (one["subjects"], "subjects")]
    return ", ".join(f"{count} {name}" for count, name in parts if count) or "nothing"


def _parents(one: Mapping[str, Any]) -> Html | None:
    return join([", from ", words(one["parents"])]) if one["parents"] else None


def _state(one: Mapping[str, Any]) -> Html:
    if one["retired"]:
        why = f" ({one['retired_for']})" if one["retired_for"] else ""
        return join([f"retired{why} ", when(one["retired"])])
    return join(["in use" if one["recorded"] else "in use, no ledger row of its own"])


def purposes(report: Mapping[str, Any]) -> Html:
    """Return the purposes and their lawful bases."""
    rows = [
        (
            (
                join([word(one["name"]), el("br"), el("span", word(one["description"]), class_="soft")]),
                word(one["lawful_basis"])
                if one["lawful_basis"]
                else el("span", "not declared", class_="warn"),
                words(one["actions"]),
                words(one["datasets"]),
                _until(one),
                words(one["roles"], "all with the right"),
                words(one["compatible_with"]),
            ),
            one,
            f"purposes.{index}",
        )
        for index, one in enumerate(report["purposes"])
    ]
    return section(
        "purposes",
        "Purposes and lawful bases",
        el("p", "A release for any other purpose, action or role is refused, and the refusal recorded.")
        if rows
        else el("p", "The policy declares no purpose, so none is enforced.", class_="warn"),
        table(
            "Purposes",
            ("Purpose", "Lawful basis", "Actions", "Datasets", "Until", "Roles", "May reuse data given for"),
            rows,
        ),
    )


def _until(one: Mapping[str, Any]) -> Html:
    if one["expired"]:
        return el("span", f"ended {one['expires']}", class_="warn")
    return join([one["expires"] or "no end"])


def door(report: Mapping[str, Any]) -> Html:
    """Return what was dropped and generalised, and what the tests of the rest said."""
    rows = [
        (
            (
                word(one["version"]),
                words(one["kept"]),
                _dropped(one["dropped"]),
                _coarser(one["generalised"]),
                _tests(one["tested"]),
            ),
            one,
            f"door.{index}",
        )
        for index, one in enumerate(report["door"])
    ]
    return section(
        "door",
        "What was left at the door",
        el("p", "What is not on the policy's list never reached the store."),
        table("Minimisation of each version", ("Version", "Kept", "Dropped", "Made coarser", "Checks"), rows),
    )


def _dropped(fields: list[dict[str, str]]) -> Html:
    if not fields:
        return words([])
    return listed([join([word(one["field"]), ": ", word(one["why"])]) for one in fields])


def _coarser(fields: list[dict[str, str]]) -> Html:
    return join([join([word(one["field"]), f" ({one['rule']})"]) for one in fields], ", ") or words([])


def _tests(result: Mapping[str, Any]) -> Html:
    if not result:
        return words([], "none were run")
    lines = [
        join(
            [
                f"k = {result.get('k')} by ",
                words(result["quasi_identifiers"]),
                f"; {result.get('groups_of_one')} of {result.get('groups')} groups are one person",
            ]
        )
    ]
    for name, value in result.get("l", {}).items():
        lines.append(join([f"l = {value}, t = {result['t'].get(name)} for ", word(name)]))
    badge = el("span", "tested", class_="badge tested")
    return join([badge, listed(lines), el("span", str(result.get("limits", "")), class_="soft")])


def retention(report: Mapping[str, Any]) -> Html:
    """Return how long data may stay, what is due and what was ended."""
    facts = report["retention"]
    general = facts["days"]
    said = [f"In general: {f'{general} days' if isinstance(general, int) else general}"]
    said += [f"{name}: {days} days" for name, days in facts["datasets"].items()]
    due, coming = (
        [
            ((word(one["version"]), str(one["days"]), when(one["end"])), one, f"retention.{key}.{index}")
            for index, one in enumerate(facts[key])
        ]
        for key in ("due", "coming")
    )
    ended = [
        ((word(one["version"]), when(one["at"])), one, f"retention.ended.{index}")
        for index, one in enumerate(facts["ended"])
    ]
    logged = [
        ((word(one["dataset"]), str(one["count"]), when(one["last"])), one, f"retention.logged.{index}")
        for index, one in enumerate(facts["logged"])
    ]
    head = ("Version", "Days", "Must go by (UTC)")
    return section(
        "retention",
        "Retention",
        el("p", "What the policy says:"),
        listed([word(line) for line in said]),
        table("Past their time", head, due),
        table("Will be due", head, coming),
        table("Ended by retention, in the ledger", ("Version", "When (UTC)"), ended),
        table("Ended by retention, in its log", ("Dataset", "Items", "Last (UTC)"), logged)
        if logged
        else None,
    )


def consent(report: Mapping[str, Any]) -> Html:
    """Return how many people agree to what."""
    rows = [
        (
            (
                word(one["purpose"]),
                "yes" if one["asked"] else "no: it has another lawful basis",
                str(one["given"]),
                str(one["withdrawn"]),
            ),
            one,
            f"consent.{index}",
        )
        for index, one in enumerate(report["consent"])
    ]
    return section(
        "consent",
        "Consent",
        el("p", "Nobody has agreed to anything until the consent register says so. It holds no names."),
        table("People by purpose", ("Purpose", "Rests on consent", "Agree", "Withdrew"), rows),
    )
