"""Pictures of a budget, as SVG inside the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sfumato.report.html import Html, el, source, word

#: Curves drawn, of the shares with most spent; the table has all.
DRAWN = 12
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 320.0, 132.0, 36.0, 8.0, 20.0


def bar(share: Mapping[str, Any], path: str) -> Html:
    """Return one share's budget as a bar: what is spent, from the left, and what is left."""
    part = float(share["spent_part"])
    said = (
        f"spent epsilon {share['spent_epsilon']} of {share['epsilon']} ({share['spent_part']}%); "
        f"left {share['left_epsilon']}"
    )
    drawing = el(
        "svg",
        el("rect", x="0", y="0", width="1000", height="16", fill="#e4f0f2", class_="s-left"),
        el("rect", x="0", y="0", width=f"{part * 10:.1f}", height="16", fill="#0b5c6b", class_="s-spent"),
        viewBox="0 0 1000 16",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{name(share)}: {said}",
    )
    label = el("p", el("strong", word(name(share))), el("span", said, " ", source(share)))
    return el("div", label, drawing, class_="bar", data_claim=path)


def curves(shares: Sequence[Mapping[str, Any]], end: str) -> Html:
    """Return how the spending of each share went, one small picture each."""
    ordered = fullest(shares, DRAWN)
    first = min((share["curve"][0]["at"] for share in shares), default=end)
    drawn = [_curve(share, f"shares.{index}.curve", first, end) for index, share in ordered]
    return el("div", drawn, class_="curves")


def fullest(shares: Sequence[Mapping[str, Any]], most: int) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the shares with most spent and their places; without those that are only templates of blocks."""
    charged = [(index, share) for index, share in enumerate(shares) if not share["template"]]
    return sorted(charged, key=lambda pair: (-float(pair[1]["spent_part"]), pair[0]))[:most]


def name(share: Mapping[str, Any]) -> str:
    """Return what a share is called."""
    block = f" (block {share['block']})" if share["block"] else ""
    return f"{share['population']} / {share['share']}{block}"


def _curve(share: Mapping[str, Any], path: str, first: str, end: str) -> Html:
    start, stop = datetime.fromisoformat(first), datetime.fromisoformat(end)
    whole = max((stop - start).total_seconds(), 1.0)
    right, floor = WIDTH - 8, HEIGHT - BOTTOM

    def x(at: str) -> float:
        return LEFT + (right - LEFT) * (datetime.fromisoformat(at) - start).total_seconds() / whole

    def y(part: str | float) -> float:
        return floor - (floor - TOP) * float(part) / 100

    points = share["curve"]
    line, last = f"M{x(points[0]['at']):.1f} {y(0):.1f}", points[-1]
    for point in points:
        line += f"H{x(point['at']):.1f}V{y(point['part']):.1f}"
    line += f"H{right:.1f}"
    marks = [
        (
            el(
                "line",
                x1=LEFT,
                x2=right,
                y1=f"{y(at):.1f}",
                y2=f"{y(at):.1f}",
                stroke="#d9dde3",
                class_="s-grid",
            ),
            _text(f"{at}%", LEFT - 5, y(at) + 4, "end"),
        )
        for at in (0, 50, 100)
    ]
    drawing = el(
        "svg",
        marks,
        el("path", d=f"{line}V{floor:.1f}Z", fill="#e4f0f2", class_="s-area"),
        el("path", d=line, fill="none", stroke="#0b5c6b", stroke_width="2", class_="s-line"),
        el("circle", cx=f"{right:.1f}", cy=f"{y(last['part']):.1f}", r="3.5", fill="#0b5c6b", class_="s-dot"),
        _text(first[:10], LEFT, HEIGHT - 5, "start"),
        _text(end[:10], right, HEIGHT - 5, "end"),
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        role="img",
        aria_label=f"{name(share)}: part of the budget spent over time, {last['part']}% at the end",
    )
    caption = el(
        "figcaption",
        el("strong", word(name(share))),
        f" {last['part']}% spent, since ",
        source(points[0]),
        " until ",
        source(last),
    )
    return el("figure", caption, drawing, data_claim=path)


def _text(words: str, x: float, y: float, anchor: str) -> Html:
    return el(
        "text",
        words,
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        text_anchor=anchor,
        font_size="11",
        font_family="sans-serif",
        fill="#56606e",
        class_="s-text",
    )
