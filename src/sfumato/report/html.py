"""Writing HTML: everything is escaped unless this file made it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: What a page must not hold at all: control characters and halves of surrogate pairs.
BROKEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
VOID = ("meta", "br", "wbr")
SHAPES = ("path", "rect", "line", "circle")


class Html(str):
    """Markup that is safe to put in a page as it is."""

    __slots__ = ()


Child = Any


def escape(text: object) -> Html:
    """Return text as markup.

    >>> escape('<script>"')
    '&lt;script&gt;&quot;'
    """
    return Html(html.escape(BROKEN.sub("\ufffd", str(text)), quote=True))


def el(tag: str, *children: Child, **attributes: object) -> Html:
    """Return an element; a trailing underscore is dropped from names, others become dashes.

    >>> el("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = join(children)
    if tag in SHAPES:
        return Html(f"<{tag}{shown}/>")
    return Html(f"<{tag}{shown}>" if tag in VOID and not inner else f"<{tag}{shown}>{inner}</{tag}>")


def join(children: Iterable[Child], between: str = "") -> Html:
    """Return children in a row; lists are laid flat, nothing is left out but None."""
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, (list, tuple)):
            parts.append(join(child))
        else:
            parts.append(child if isinstance(child, Html) else escape(child))
    return Html(between.join(parts))


def word(text: object) -> Html:
    """Return a name from outside; its direction of writing does not reach its neighbours."""
    return el("bdi", str(text)) if str(text) else Html("")


def words(items: Sequence[object], nothing: str = "none") -> Html:
    """Return names with commas between."""
    return join([word(item) for item in items], ", ") if items else el("span", nothing, class_="none")


def breakable(text: object) -> Html:
    """Return text that may go on in the next line after a dot within a name."""
    return join(re.split(r"(?<=\.)(?=\w)", str(text)), el("wbr"))


def code(text: object, length: int = 16) -> Html:
    """Return the beginning of a hash; the whole of it shows when pointed at."""
    return el("code", str(text)[:length], title=str(text))


def when(text: str) -> Html:
    """Return a time of the ledger for people."""
    return el("time", text[:16].replace("T", " "), datetime=text) if text else Html("")


def source(record: Mapping[str, Any]) -> Html:
    """Return what a record follows from, as small links into the appendix."""
    origin, chips = record.get("from", {}), []
    rows = origin.get("rows", ())
    if "of" in origin:
        chips.append(
            el("span", _row(rows[0]), " to ", _row(rows[1]), f" ({origin['of']} rows)", class_="span")
        )
    else:
        chips += [_row(row) for row in rows]
    if "version" in origin:
        digest = str(origin["version"])
        chips.append(el("a", f"version {digest[:8]}", href=f"#v-{digest[:16]}", class_="src", title=digest))
    if "consent" in origin:
        listed = ", ".join(str(row) for row in origin["consent"])
        chips.append(el("a", f"consent register {listed}", href="#appendix", class_="src"))
    if "policy" in origin:
        chips.append(el("a", breakable(f"policy: {origin['policy']}"), href="#policy", class_="src long"))
    for key in ("vault", "line of the retention log"):
        if key in origin:
            chips.append(el("span", f"{key} {origin[key]}", class_="src"))
    return join(chips, " ")


def _row(row: int) -> Html:
    return el("a", f"row {row}", href=f"#row-{row}", class_="src")


def table(
    caption: str, head: Sequence[str], rows: Sequence[tuple[Sequence[Child], Mapping[str, Any], str]]
) -> Html:
    """Return a table whose first column names the row and whose last one says where it comes from.

    Args:
        rows: cells, the record that they show, and the path of that record among the claims.
    """
    if not rows:
        return el("p", f"{caption}: none.", class_="none")
    names = [*head, "Source"]
    body = []
    for cells, record, path in rows:
        filled = [*cells, source(record)]
        shown = [
            el("th", cell, scope="row", data_label=name)
            if index == 0
            else el("td", cell if cell != "" else Html("&#8211;"), data_label=name)
            for index, (name, cell) in enumerate(zip(names, filled, strict=True))
        ]
        body.append(el("tr", shown, data_claim=path))
    return el(
        "div",
        el(
            "table",
            el("caption", caption),
            el("thead", el("tr", [el("th", name, scope="col") for name in names])),
            el("tbody", join(body, "\n")),
        ),
        class_="scroll",
        role="region",
        aria_label=caption,
        tabindex="0",
    )


def section(anchor: str, title: str, *children: Child) -> Html:
    """Return a section of the page."""
    heading = el("h2", title, id=f"{anchor}-title")
    return Html(f"\n{el('section', heading, *children, id=anchor, aria_labelledby=f'{anchor}-title')}\n")


def listed(items: Sequence[Child]) -> Html:
    """Return a list."""
    return el("ul", [el("li", item) for item in items])


def law(title: str) -> Html:
    """Return the mark of everything that is about a law."""
    return el(
        "p",
        el("strong", "Help, not legal advice. "),
        title,
        class_="law",
    )
