"""The report: one page, with the receipt's figures and contact sheets of the outputs; it fetches nothing.

It is made from the receipt and the output files only, never from an input, and names no file.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core import errors
from sfumato.core.files import write_whole
from sfumato.core.receipt import Receipt
from sfumato.redaction.plan import COSMETIC, Kind
from sfumato.redaction.sheets import Sheet, Thumb, sheets

STYLE = Path(__file__).with_name("report.css")


def write_report(path: Path, receipt: Receipt, outputs: Sequence[tuple[Path, Kind]]) -> None:
    """Write the report of a run; the file appears whole.

    Guarantee:
        - Of all media files, only `outputs` are opened.
        - The page holds no name or path and no metadata of an output, asks no other place for anything, and
          runs no script (a Content-Security-Policy in the page says so to the browser too).

    Args:
        path: the page to write.
        receipt: of a redaction.
        outputs: (file, "image" or "video") of each output, in the order of the receipt.
    """
    described = [
        (file, kind, output.sha256) for (file, kind), output in zip(outputs, receipt.outputs, strict=True)
    ]
    write_whole(path, page(receipt, sheets(described)))


def page(receipt: Receipt, contact: Iterable[Sheet]) -> str:
    """Return the report as HTML.

    Args:
        receipt: of a redaction.
        contact: the contact sheets to show.
    """
    style = STYLE.read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{allowed}'; base-uri 'none'"
    body = receipt.body
    parts = [
        _header(receipt),
        _figures(body["facts"]),
        _guarantee(body),
        "".join(_sheet(sheet) for sheet in contact),
        _tables(body),
        _footer(receipt),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="robots" content="noindex">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Redaction report</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _header(receipt: Receipt) -> str:
    body = receipt.body
    where = (
        f"recorded in the project's ledger, rows {receipt.rows[0].seq} and {receipt.rows[-1].seq}"
        if receipt.recorded
        else "not recorded: there was no project"
    )
    return (
        "<header><h1>Redaction report</h1>"
        f"<p>{_text(body['made_at'])} · {_text(body['made_by'])} · "
        f"purpose: {_text(body['plan']['purpose'])} · {_text(where)}</p></header>\n"
    )


def _figures(facts: Mapping[str, Any]) -> str:
    files = facts["files"]
    written = files["done"] + files["skipped"]
    figures = [(written, "file redacted" if written == 1 else "files redacted")]
    figures += [(count, f"regions: {label}") for label, count in facts["regions"].items()]
    if not facts["regions"]:
        figures.append((0, "regions found"))
    if facts["videos"]:
        figures.append((facts["frames"], "frames"))
    figures.append((files["failed"], "failed: not written"))
    cells = "".join(
        f"<div><b>{_text(f'{value:,}')}</b><span>{_text(what)}</span></div>" for value, what in figures
    )
    return f'<section class="figures">{cells}</section>\n'


def _guarantee(body: Mapping[str, Any]) -> str:
    promise = body["guarantee"]
    limits = "".join(f"<li>{_text(limit)}</li>" for limit in promise["limits"])
    warning = ""
    if body["plan"]["parameters"].get("cover") == "cosmetic":
        warning = (
            '<div class="card warning"><strong>The cover is cosmetic.</strong>'
            f"It looks hidden and is not: {_text(COSMETIC)}. Use a secure cover to protect people.</div>\n"
        )
    return (
        f"{warning}<h2>What is promised</h2>\n"
        f'<section class="card"><span class="kind">{_text(promise["type"])}</span>'
        f"<p>{_text(promise['statement'])}</p><ul>{limits}</ul></section>\n"
    )


def _sheet(sheet: Sheet) -> str:
    figures = "".join(_figure(thumb) for thumb in sheet.thumbs)
    return f'<h2>Outputs: {_text(sheet.title)}</h2>\n<section class="sheet">{figures}</section>\n'


def _figure(thumb: Thumb) -> str:
    if thumb.jpeg is None:
        picture = '<span class="blank">cannot be shown here</span>'
    else:
        data = base64.b64encode(thumb.jpeg).decode()
        size = f'width="{thumb.width}" height="{thumb.height}"'
        picture = f'<img src="data:image/jpeg;base64,{data}" {size} alt="output">'
    return f"<figure>{picture}<figcaption>{_text(thumb.caption)}</figcaption></figure>\n"


def _tables(body: Mapping[str, Any]) -> str:
    facts, parameters = body["facts"], body["plan"]["parameters"]
    files = facts["files"]
    counts = [
        ("Found", files["found"]),
        ("Redacted by this run", files["done"]),
        ("Redacted by an earlier run", files["skipped"]),
        ("Failed, nothing written", files["failed"]),
        ("Left out: neither picture nor video", files["left_out"]),
        ("Pictures, videos, frames", f"{facts['pictures']}, {facts['videos']}, {facts['frames']}"),
    ]
    reasons = [(_meaning(name), count) for name, count in facts["failed_by_reason"].items()]
    models = [
        (model["name"], f"{model['licence']} · sha256 {model['sha256']}") for model in parameters["models"]
    ]
    settings = [(name.replace("_", " "), _plain(value)) for name, value in parameters["settings"].items()]
    tables = [("Files", counts), ("Failures by reason", reasons), ("Models", models), ("Settings", settings)]
    notes = "".join(f"<li>{_text(note)}</li>" for note in facts["notes"])
    return "".join(_table(title, rows) for title, rows in tables if rows) + (
        f'<h2>Notes</h2>\n<section class="card"><ul>{notes}</ul></section>\n' if notes else ""
    )


def _table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    cells = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows)
    return f"<h2>{_text(title)}</h2>\n<table>{cells}</table>\n"


def _meaning(name: str) -> str:
    """Return what an error's class stands for, in its own words."""
    known = getattr(errors, name, None)
    first = (known.__doc__ or "").partition("\n")[0].rstrip(".") if isinstance(known, type) else ""
    return f"{name}: {first}" if first else name


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "by class"
    return "by the detector" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _footer(receipt: Receipt) -> str:
    digest = f"<code>{_text(receipt.digest)}</code>"
    return (
        f"<footer>Made from the receipt {digest} and the outputs only; check the receipt beside this page "
        "with <code>sfumato receipt verify</code>. Numbers under the pictures: place in the receipt, and the "
        "first digits of the output's sha256.</footer>\n"
    )
