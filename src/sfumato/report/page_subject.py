"""The answer to one person (GDPR Art. 15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.report.html import Html, code, el, join, law, listed, section, table, when, word, words
from sfumato.report.legal import TO_DO
from sfumato.report.page_activity import badge
from sfumato.report.page_legal import said

RIGHTS = (
    "to have wrong data about you put right (Art. 16)",
    "to have data about you erased (Art. 17)",
    "to have the use of it restricted (Art. 18)",
    "to object to its use (Art. 21)",
    "to take your consent back at any time, where the use rests on it (Art. 7(3))",
    "to complain to a supervisory authority (Art. 77)",
)


def parts(report: Mapping[str, Any]) -> list[tuple[str, str, Html]]:
    """Return (anchor, short name, section)."""
    return [
        ("glance", "In short", _short(report)),
        ("held", "Data", _held(report)),
        ("purposes", "Purposes", _purposes(report)),
        ("consent", "Consent", _consent(report)),
        ("releases", "Use", _uses(report)),
        ("rights", "Rights", _rights(report)),
    ]


def _short(report: Mapping[str, Any]) -> Html:
    facts, project = report["subject"], report["project"]
    held = [one for one in facts["versions"] if one["state"].startswith("holds data")]
    unread = [one for one in facts["versions"] if one["state"].startswith("could not")]
    gone = [one for one in facts["versions"] if one["state"].startswith("held data")]
    return section(
        "glance",
        "In short",
        el(
            "p",
            el("strong", "This file is personal data itself. "),
            "Give it to the person it is about, and to nobody else.",
            class_="alert",
        ),
        law("A start for the answer that Article 15 asks for. Check it, and add what lies elsewhere."),
        el(
            "p",
            f"Data of this person are in {len(held)} of {len(facts['versions'])} dataset versions"
            + (f"; {len(unread)} could not be read" if unread else "")
            + (f"; {len(gone)} held some that were erased" if gone else "")
            + f". {len(facts['releases'])} releases read such versions. Consents and withdrawals: "
            f"{len(facts['consents'])}. Erasures: {len(facts['erasures'])}.",
        ),
        el(
            "dl",
            el("dt", "The person"),
            el("dd", join([el("code", name) for name in facts["pseudonyms"]], " ")),
            el("dt", "Population"),
            el("dd", word(facts["population"] or "not given")),
            el("dt", "Controller"),
            el("dd", said(project["controller"] or f'{TO_DO}[project] controller = "..."')),
            el("dt", "Contact"),
            el("dd", said(project["contact"] or f'{TO_DO}[project] contact = "..."')),
            el("dt", "Data protection officer"),
            el("dd", said(project["dpo"] or f'{TO_DO}[project] dpo = "...", where there is one')),
            class_="facts",
        ),
        el(
            "p",
            "The person is named by keyed hashes, which only this project can make from their id.",
            class_="soft",
        ),
    )


def _held(report: Mapping[str, Any]) -> Html:
    facts = report["subject"]
    versions = [
        (
            (
                word(one["version"]),
                el("strong", one["state"]) if one["state"].startswith("holds data") else one["state"],
                words(one["fields"]) if one["state"].startswith("holds data") else "",
                when(one["created"]),
                when(one["retired"]),
            ),
            one,
            f"subject.versions.{index}",
        )
        for index, one in enumerate(facts["versions"])
    ]
    sets = [
        (
            (
                word(one["name"]),
                said(", ".join(one["categories"]) or f"{TO_DO}[datasets.{one['name']}] categories = [...]"),
                said(one["source"] or f'{TO_DO}[datasets.{one["name"]}] source = "..."'),
                f"{one['retention_days']} days"
                if isinstance(one["retention_days"], int)
                else one["retention_days"],
            ),
            one,
            f"subject.datasets.{index}",
        )
        for index, one in enumerate(facts["datasets"])
    ]
    return section(
        "held",
        "Which data",
        table(
            "Versions looked through",
            ("Version", "Found", "Fields", "Since (UTC)", "Retired (UTC)"),
            versions,
        ),
        table(
            "Datasets that hold the person", ("Dataset", "Categories", "Obtained from", "Stored for"), sets
        ),
        el(
            "p",
            "A retired version is not used any more, and its data may be destroyed already.",
            class_="soft",
        ),
        el("p", "A copy of the data (Art. 15(3)) is not part of this page."),
    )


def _purposes(report: Mapping[str, Any]) -> Html:
    mine = report["subject"]["purposes"]
    rows = [
        (
            (
                join([word(one["name"]), el("br"), el("span", word(one["description"]), class_="soft")]),
                word(one["lawful_basis"] or "not declared"),
                said(", ".join(one["recipients"]) or f"{TO_DO}[purposes.{one['name']}] recipients = [...]"),
                said(one["transfers"] or f'{TO_DO}[purposes.{one["name"]}] transfers = "none"'),
                one["expires"] or "no end",
            ),
            one,
            f"purposes.{index}",
        )
        for index, one in enumerate(report["purposes"])
        if one["name"] in mine
    ]
    head = ("Purpose", "Lawful basis", "Recipients", "Other countries", "Until")
    return section("purposes", "What for, and who receives it", table("Purposes", head, rows))


def _consent(report: Mapping[str, Any]) -> Html:
    rows = [
        ((word(one["purpose"]), one["kind"], one["date"]), one, f"subject.consents.{index}")
        for index, one in enumerate(report["subject"]["consents"])
    ]
    return section("consent", "Consent", table("Given and withdrawn", ("Purpose", "What", "Day (UTC)"), rows))


def _uses(report: Mapping[str, Any]) -> Html:
    uses = [
        (
            (
                when(one["at"]),
                badge(one["guarantee"]),
                word(one["mechanism"]),
                word(one["purpose"]),
                "yes" if one["certain"] else "its dataset did; the receipt does not say which version",
                word(one["statement"]),
            ),
            one,
            f"subject.releases.{index}",
        )
        for index, one in enumerate(report["subject"]["releases"])
    ]
    erased = [
        ((when(one["at"]), word(one["statement"]), code(one["receipt"])), one, f"subject.erasures.{index}")
        for index, one in enumerate(report["subject"]["erasures"])
    ]
    head = ("When (UTC)", "Guarantee", "Mechanism", "Purpose", "Held this person's data", "What left")
    return section(
        "releases",
        "What it was used for",
        table("Releases from these versions", head, uses),
        table("Erasures of this person", ("When (UTC)", "What was done", "Receipt"), erased),
        el(
            "p",
            "Releases whose plan names no dataset, such as redacted copies of loose files, cannot be told by "
            "person.",
            class_="soft",
        ),
    )


def _rights(report: Mapping[str, Any]) -> Html:
    return section(
        "rights",
        "Your rights",
        law(
            "The list follows Article 15(1)(e) and (f); how to use these rights is for the controller to say."
        ),
        el("p", "You have the right, within the limits of the law:"),
        listed(RIGHTS),
        el("p", "No decision about a person is made by this software (Art. 22)."),
    )
