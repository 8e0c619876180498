"""The sections on releases, refusals, erasures, roles and raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.report.html import Html, code, el, join, listed, section, source, table, when, word, words


def badge(kind: object) -> Html:
    """Return a guarantee type."""
    return el("span", str(kind), class_=f"badge {kind}")


def releases(report: Mapping[str, Any]) -> Html:
    """Return every release: the newest one by one, all of them by month."""
    facts = report["releases"]
    months = [
        (
            (
                one["month"],
                word(one["mechanism"]),
                one["action"],
                word(one["purpose"]),
                badge(one["guarantee"]),
                _counted(one),
            ),
            one,
            f"releases.months.{index}",
        )
        for index, one in enumerate(facts["months"])
    ]
    shown = facts["newest"]
    older = facts["count"] - len(shown)
    return section(
        "releases",
        "Releases",
        el("p", "What left, under which guarantee. A blur is never given as a number of privacy loss."),
        table("By month", ("Month", "Mechanism", "Action", "Purpose", "Guarantee", "Releases"), months),
        el("h3", "One by one, newest first") if shown else None,
        el("p", f"The newest {len(shown)} of {facts['count']}; `sfumato report --json` has all.")
        if older > 0
        else None,
        el("div", [_release(one, f"releases.newest.{n}") for n, one in enumerate(shown)], class_="releases"),
    )


def _reserved(one: Mapping[str, Any]) -> str:
    return f" Less than was reserved: {one['reserved']}." if one["reserved"] else ""


def _counted(one: Mapping[str, Any]) -> str:
    extra = [(one["taken_back"], "taken back"), (one["unfinished"], "unfinished")]
    said = ", ".join(f"{count} {name}" for count, name in extra if count)
    return str(one["count"]) + (f" ({said})" if said else "")


def _release(one: Mapping[str, Any], path: str) -> Html:
    state = {
        "released": "",
        "taken back": " Taken back before any noise was drawn: it cost nothing.",
        "unfinished": " Charged and never finished: its cost stands.",
    }[one["state"]]
    costs = [
        join(
            [
                word(charge["share"]),
                f": epsilon {charge['epsilon']}",
                f", delta {charge['delta']}" if charge["delta"] != "0" else "",
                f"; the share then stood at {charge['share_after']} ",
                source(charge),
            ]
        )
        for charge in one["charges"]
    ]
    receipt = join([code(one["receipt"]), "" if one["receipt_kept"] else " (no copy kept here)"])
    return el(
        "article",
        el("h4", badge(one["guarantee"]), " ", word(one["mechanism"]), " for ", word(one["purpose"])),
        el(
            "p",
            when(one["at"]),
            f" UTC, {one['action']}, by the role: {one['role']}. ",
            source(one),
            el("strong", state),
        ),
        el("p", word(one["statement"])) if one["statement"] else None,
        el("details", el("summary", "What it does not cover"), listed([word(x) for x in one["limits"]]))
        if one["limits"]
        else None,
        el("p", f"Event: {one['event']}." + _reserved(one)) if one["charges"] else None,
        join([el("p", "Cost on its own:"), listed(costs)]) if costs else None,
        el("p", "Receipt: ", receipt, f", {one['outputs']} file{'s' * (one['outputs'] != 1)} released")
        if one["receipt"]
        else None,
        data_claim=path,
    )


def refusals(report: Mapping[str, Any]) -> Html:
    """Return what was refused, by rule."""
    rows = [
        (
            (
                el("code", one["rule"]),
                one["action"],
                word(one["purpose"]),
                str(one["count"]),
                when(one["first"]),
                when(one["last"]),
                words(one["roles"]),
            ),
            one,
            f"refusals.rules.{index}",
        )
        for index, one in enumerate(report["refusals"]["rules"])
    ]
    return section(
        "refusals",
        "Refusals",
        el(
            "p",
            "What was asked for and not allowed. A budget that is spent is seen above, and not counted here.",
        ),
        table(
            "By rule",
            ("Rule", "Action", "Purpose", "Times", "First (UTC)", "Last (UTC)", "Asked by"),
            rows,
        ),
    )


def erasures(report: Mapping[str, Any]) -> Html:
    """Return the erasures."""
    facts = report["erasures"]
    rows = [
        (
            (when(one["at"]), one["state"], one["role"], code(one["receipt"]) if one["receipt"] else ""),
            one,
            f"erasures.newest.{index}",
        )
        for index, one in enumerate(facts["newest"])
    ]
    return section(
        "erasures",
        "Erasures",
        el("p", f"{facts['count']} in all. Whose they were stands in no report. ", source(facts)),
        table("Newest first", ("When (UTC)", "State", "By the role", "Receipt"), rows),
    )


def roles(report: Mapping[str, Any]) -> Html:
    """Return who may do what, and how budgets were raised."""
    facts = report["roles"]
    members = [
        (
            (one["role"], str(one["members"]), words(one["rights"])),
            facts,
            f"roles.roles.{index}",
        )
        for index, one in enumerate(facts["roles"])
    ]
    changes = [
        (
            (
                word(one["population"]),
                when(one["at"]),
                one["state"],
                f"{one['from_epsilon']} to {one['to_epsilon']}",
                f"{one['from_delta']} to {one['to_delta']}",
                word(one["proposed_by"]) if one["proposed_by"] else "one person, no roles",
                word(one["approved_by"]),
            ),
            one,
            f"raises.{index}",
        )
        for index, one in enumerate(report["raises"])
    ]
    return section(
        "roles",
        "Roles, and changes of budgets",
        table("Roles", ("Role", "Members", "Rights"), members)
        if facts["declared"]
        else el("p", "No roles are declared: whoever can open the project is its owner.", class_="warn"),
        table(
            "Budgets changed",
            ("Population", "When (UTC)", "State", "Epsilon", "Delta", "Proposed by", "Approved by"),
            changes,
        ),
        el("p", "Why a budget was changed stands in the row, which is not copied here.", class_="soft")
        if changes
        else None,
    )
