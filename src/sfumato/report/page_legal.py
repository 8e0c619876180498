"""The sections that help with three laws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.report.html import Html, breakable, el, join, law, listed, section, source, table, word, words
from sfumato.report.legal import TO_DO


def said(text: object) -> Html:
    """Return what the policy says, or a mark where it says nothing."""
    return el("span", breakable(text), class_="warn") if str(text).startswith(TO_DO) else word(text)


def article_30(report: Mapping[str, Any]) -> Html:
    """Return the record of processing activities."""
    facts = report["article_30"]
    rows = [
        (
            (
                join([word(one["purpose"]), el("br"), el("span", said(one["description"]), class_="soft")]),
                said(one["basis"]),
                listed([said(x) for x in one["subjects"]]),
                listed([said(x) for x in one["categories"]]),
                listed([said(x) for x in one["recipients"]]),
                said(one["transfers"]),
                listed([said(x) for x in one["erasure"]]),
            ),
            one,
            f"article_30.activities.{index}",
        )
        for index, one in enumerate(facts["activities"])
    ]
    people = [
        (el("dt", name), el("dd", said(facts[key])))
        for name, key in (
            ("(a) Controller", "controller"),
            ("(a) Contact", "contact"),
            ("(a) Data protection officer", "dpo"),
        )
    ]
    return section(
        "gdpr",
        "GDPR: record of processing activities",
        law(
            "A start for the record that Article 30(1) asks of a controller; letters are those of its list. "
            "What is marked “to be completed” this project does not know. Joint controllers, representatives "
            "and measures outside this software are to be added."
        ),
        el("dl", people, class_="facts"),
        table(
            "Processing, by purpose",
            (
                "(b) Purpose",
                "Lawful basis (Art. 6)",
                "(c) People",
                "(c) Personal data",
                "(d) Recipients",
                "(e) Transfers",
                "(f) Erased after",
            ),
            rows,
        ),
        el("h3", "(g) Security measures that this project shows"),
        el(
            "ul",
            [
                el("li", one["measure"], " ", source(one), data_claim=f"article_30.security.{index}")
                for index, one in enumerate(facts["security"])
            ],
        ),
    )


def california(report: Mapping[str, Any]) -> Html:
    """Return the categories of the CCPA."""
    facts = report["california"]
    rows = [
        (
            (f"({one['letter']}) {one['what']}", words(one["datasets"], "none declared")),
            one,
            f"california.categories.{index}",
        )
        for index, one in enumerate(facts["categories"])
    ]
    return section(
        "ccpa",
        "CCPA: categories of personal information",
        law(
            "Which categories of California Civil Code 1798.140(v)(1) the declared categories of data fall "
            "under. Whether the law applies to you is for you to find out. Health data under HIPAA are "
            "largely outside it (1798.145(c)). Precise location, and origin or belief among demographics, "
            "are sensitive information (L) too."
        ),
        table("Categories", ("Category", "Datasets"), rows),
        el("p", "Sold: ", facts["sold"], ". Shared for advertising: ", facts["shared"], "."),
        el("p", "No category is declared for: ", words(facts["undeclared"]), ".", class_="warn")
        if facts["undeclared"]
        else None,
    )


def hipaa(report: Mapping[str, Any]) -> Html:
    """Return the 18 identifiers of Safe Harbor."""
    facts = report["hipaa"]
    rows = [
        (
            (
                f"({one['letter']}) {one['what']}",
                el("span", one["handled"], class_="warn" if one["handled"] == "kept" else None),
                _fields(one["fields"]),
                one["note"],
            ),
            facts,
            f"hipaa.identifiers.{index}",
        )
        for index, one in enumerate(facts["identifiers"])
    ]
    return section(
        "hipaa",
        "HIPAA: the identifiers of Safe Harbor",
        law(
            "The 18 identifiers of 45 CFR 164.514(b)(2)(i), of the person and of relatives, employers and "
            "household members, and what became of the fields whose names sound like each. A name is only a "
            "hint: what a field or a picture holds was not looked at. All 18 must be gone, and nothing else "
            "known that points at the person, before Safe Harbor is met."
        ),
        el("p", f"Shown because {facts['why']}."),
        table("Identifiers", ("Identifier", "Handled", "Fields that sound like it", "Note"), rows),
    )


def _fields(fields: list[dict[str, str]]) -> Html:
    if not fields:
        return words([])
    return join(
        [
            join(
                [
                    word(f"{one['dataset']}.{one['field']}"),
                    f" ({one['what']}{': ' + one['rule'] if one['rule'] else ''})",
                ]
            )
            for one in fields
        ],
        ", ",
    )
