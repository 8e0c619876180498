"""The page: one HTML file with all in it, a pure function of what the report says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sfumato.report import page_activity, page_data, page_legal, page_subject, plots
from sfumato.report.html import Html, code, el, join, listed, section, source, table, when, word
from sfumato.report.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
#: The claims stand between these; the block is data, and no browser runs it.
OPEN, CLOSE = '<script type="application/json" id="claims">', "</script>"

#: The cells of a table's row, the record that they show, and its path among the claims.
Line = tuple[Sequence[Any], Mapping[str, Any], str]

#: Budgets drawn as bars, of the shares with most spent; the table has all.
BARS = 24

GUARANTEES = (
    ("proven", "a mathematical guarantee: this much privacy loss, and no more, under stated assumptions"),
    ("tested", "an attack or check was run and its result written down; nothing follows for other attacks"),
    ("heuristic", "a filter was applied, such as a blur; nobody measured how well it protects"),
)


def render(data: Mapping[str, Any]) -> str:
    """Return the page of a report; the same for the same data, byte by byte."""
    answer = data["kind"] == "subject"
    parts = page_subject.parts(data) if answer else _parts(data)
    title = "What is held about you" if answer else "Transparency report"
    name = data["project"]["name"]
    head = [
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title}: {name}"),
        el("style", Html(STYLE)),
    ]
    body = [
        el("a", "Skip to the report", href="#glance", class_="skip"),
        _header(data, title, parts),
        el("main", [part for _, _, part in parts], _appendix(data)),
        _footer(data),
        Html(f"\n{OPEN}{embed(data)}{CLOSE}\n"),
    ]
    page = el("html", el("head", join(head, "\n")), "\n", el("body", body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def embed(data: Mapping[str, Any]) -> str:
    """Return the claims as JSON that cannot end the element it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _parts(data: Mapping[str, Any]) -> list[tuple[str, str, Html]]:
    """Return (anchor, short name, section)."""
    return [
        ("glance", "At a glance", _glance(data)),
        ("budget", "Budget", _budget(data)),
        ("data", "Data", page_data.data(data)),
        ("purposes", "Purposes", page_data.purposes(data)),
        ("door", "Minimisation", page_data.door(data)),
        ("releases", "Releases", page_activity.releases(data)),
        ("refusals", "Refusals", page_activity.refusals(data)),
        ("erasures", "Erasures", page_activity.erasures(data)),
        ("retention", "Retention", page_data.retention(data)),
        ("consent", "Consent", page_data.consent(data)),
        ("roles", "Roles and raises", page_activity.roles(data)),
        ("integrity", "Integrity", _integrity(data)),
        ("gdpr", "GDPR Art. 30", page_legal.article_30(data)),
        ("ccpa", "CCPA", page_legal.california(data)),
        *([("hipaa", "HIPAA", page_legal.hipaa(data))] if data["hipaa"]["applies"] else []),
    ]


def _header(data: Mapping[str, Any], title: str, parts: Sequence[tuple[str, str, Html]]) -> Html:
    project, extent = data["project"], data["extent"]
    links = [el("a", name, href=f"#{anchor}") for anchor, name, _ in [*parts, ("appendix", "Sources", "")]]
    return el(
        "header",
        el("p", title, class_="kicker"),
        el("h1", word(project["name"])),
        el("p", word(project["description"])) if project["description"] else None,
        el(
            "p",
            "As of ",
            when(extent["at"]),
            f" UTC, from {extent['rows']} rows of the ledger. Made with {project['made_with']}. Every figure "
            "names where it comes from; ",
            el("code", "sfumato report --verify"),
            " computes each again and compares this page with it, letter by letter.",
            class_="meta",
        ),
        el("nav", el("ul", [el("li", link) for link in links]), aria_label="Sections"),
    )


def _footer(data: Mapping[str, Any]) -> Html:
    return el(
        "footer",
        el(
            "p",
            "This page loads nothing and runs nothing. It is not signed: it is worth as much as the ledger "
            f"that it is verified against, whose newest row then was {data['extent']['head']}.",
        ),
    )


def _card(name: str, value: object, record: Mapping[str, Any], path: str) -> Html:
    return el(
        "div",
        el("dt", name),
        el("dd", str(value), class_="big"),
        el("dd", source(record)),
        data_claim=path,
    )


def _glance(data: Mapping[str, Any]) -> Html:
    releases, refused, erased = data["releases"], data["refusals"], data["erasures"]
    types, waiting = releases["by_guarantee"], len(data["retention"]["due"])
    overdue = el(
        "p",
        f"{waiting} version{'s are' if waiting != 1 else ' is'} past the time that the policy allows: see ",
        el("a", "retention", href="#retention"),
        ".",
        class_="alert",
    )
    cards = [
        _card("Releases", releases["count"], releases, "releases.count"),
        _card("Refusals", refused["count"], refused, "refusals.count"),
        _card("Erasures", erased["count"], erased, "erasures.count"),
        *(
            _card(f"Releases: {kind}", types[kind]["count"], types[kind], f"releases.by_guarantee.{kind}")
            for kind, _ in GUARANTEES
        ),
        _card("Datasets", len(data["datasets"]), {"from": {"policy": "datasets"}}, "datasets"),
        _card("Rows of the ledger", data["integrity"]["rows"], data["integrity"], "integrity.rows"),
    ]
    kinds = [join([el("span", kind, class_=f"badge {kind}"), f" {meaning}."]) for kind, meaning in GUARANTEES]
    return section(
        "glance",
        "At a glance",
        el("dl", cards, class_="cards"),
        overdue if waiting else None,
        el("p", "Three kinds of guarantee, which are never mixed:"),
        listed(kinds),
        el(
            "p",
            "This page is for inside: it counts people and rows exactly. It names nobody whose data it is.",
            class_="soft",
        ),
    )


def _budget(data: Mapping[str, Any]) -> Html:
    shares = data["shares"]
    if not shares:
        return section(
            "budget",
            "Privacy budget",
            el("p", "No population has a budget here: nothing could be released under a proven guarantee."),
        )
    drawn = plots.fullest(shares, BARS)
    cut = any(share["template"] for share in shares)
    return section(
        "budget",
        "Privacy budget",
        el(
            "p",
            "How much privacy loss each group of people may suffer here, how much they have, and how much is "
            "left. It never comes back. Spent is rounded up, left is rounded down.",
        ),
        el(
            "p",
            "Blocks are parts of a population that share nobody; each has the whole of every share for "
            "itself. A block stands here from its first charge on; until then all of it is left.",
        )
        if cut
        else None,
        el("div", [plots.bar(share, f"shares.{index}") for index, share in drawn], class_="bars"),
        el("h3", "Spending over time"),
        plots.curves(shares, data["extent"]["at"]),
        _budget_tables(data),
    )


def _budget_tables(data: Mapping[str, Any]) -> Html:
    shares = data["shares"]
    rows = [
        (
            (
                word(one["name"]),
                one["unit"],
                one["relation"],
                one["epsilon"],
                one["delta"],
                one["blocks"] or "none",
            ),
            one,
            f"populations.{index}",
        )
        for index, one in enumerate(data["populations"])
    ]
    parts = [
        (
            (
                word(plots.name(share)),
                share["kind"],
                share["epsilon"],
                "in each block" if share["template"] else share["spent_epsilon"],
                "in each block" if share["template"] else share["left_epsilon"],
                share["delta"],
            ),
            share,
            f"shares.{index}",
        )
        for index, share in enumerate(shares)
    ]
    return join(
        [
            table(
                "Populations",
                ("Population", "Unit", "Neighbouring relation", "Epsilon", "Delta", "Blocks"),
                rows,
            ),
            table(
                "Shares of their budgets",
                ("Population / share", "Kind", "Epsilon", "Spent", "Left", "Delta"),
                parts,
            ),
        ]
    )


def _integrity(data: Mapping[str, Any]) -> Html:
    facts = data["integrity"]
    witness = "configured" + (", and must answer" if facts["witness_required"] else "")
    return section(
        "integrity",
        "Integrity of the ledger",
        el(
            "p",
            "When this report was made, every row was read again: the chain of hashes, every charge against "
            "its event, every total and every limit. All of it held.",
        ),
        facts_list(
            ("Ledger", el("code", facts["ledger"])),
            ("Rows", join([str(facts["rows"]), " ", source(facts)])),
            ("Newest row", el("code", facts["head"])),
            ("Merkle root of all rows", el("code", facts["merkle_root"])),
            ("Anchor outside the ledger", "holds a head of it" if facts["anchored"] else "none"),
            ("Witness on another machine", witness if facts["witness"] else "none"),
            (
                "Rows by kind",
                join([f"{kind} {count}" for kind, count in sorted(facts["kinds"].items())], ", "),
            ),
        ),
    )


def facts_list(*pairs: tuple[str, Any]) -> Html:
    """Return names with what they are."""
    return el("dl", [(el("dt", name), el("dd", value)) for name, value in pairs], class_="facts")


def _appendix(data: Mapping[str, Any]) -> Html:
    extent = data["extent"]
    rows: list[Line] = [
        (
            (
                el("span", f"row {row['row']}", id=f"row-{row['row']}"),
                row["kind"],
                when(row["at"]),
                word(row["about"]),
                el("code", row["hash"]),
            ),
            {},
            f"rows.{index}",
        )
        for index, row in enumerate(data["rows"])
    ]
    register = (
        join(
            [
                el("code", extent["register"]),
                f", {extent['consents']} rows, newest ",
                el("code", extent["consent_head"]),
            ]
        )
        if extent["register"]
        else "none"
    )
    kept = [
        el("li", word(spec), " ", el("code", digest), id=f"v-{digest[:16]}" if spec in first else None)
        for first in [_first(extent["versions"])]
        for spec, digest in extent["versions"].items()
    ]
    return section(
        "appendix",
        "Sources",
        el("p", "What this report was made from. A later row, version or consent does not change it."),
        facts_list(
            ("Made", when(extent["at"])),
            ("Policy, SHA-256", el("code", extent["policy"], id="policy")),
            ("Ledger", join([code(extent["ledger"], 32), f", {extent['rows']} rows"])),
            ("Consent register", register),
            ("Dataset versions", str(len(extent["versions"]))),
        ),
        el("p", "The policy and the versions are as of then, held by their hashes; all else is in the rows."),
        el("details", el("summary", "Dataset versions and their hashes"), el("ul", kept)) if kept else None,
        _rows_table(rows),
    )


def _rows_table(rows: Sequence[Line]) -> Html:
    head = ("Row", "Kind", "When (UTC)", "About", "Hash")
    body = [
        el(
            "tr",
            [
                el(
                    "th" if name == "Row" else "td",
                    cell,
                    data_label=name,
                    scope="row" if name == "Row" else None,
                )
                for name, cell in zip(head, cells, strict=True)
            ],
            data_claim=path,
        )
        for cells, _, path in rows
    ]
    return el(
        "div",
        el(
            "table",
            el("caption", "Rows of the ledger that this report names"),
            el("thead", el("tr", [el("th", name, scope="col") for name in head])),
            el("tbody", join(body, "\n")),
        ),
        class_="scroll",
        role="region",
        aria_label="Rows of the ledger",
        tabindex="0",
    )


def _first(versions: Mapping[str, str]) -> set[str]:
    """Return one name for each hash: the same data may be a version of several datasets."""
    return set({digest: spec for spec, digest in reversed(list(versions.items()))}.values())
