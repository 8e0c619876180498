"""Whoever holds the page, the book or both, and wants the one not to fit the other, is found out."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from sfumato.core.book import row_hash
from sfumato.core.errors import IntegrityError
from sfumato.core.event import Gaussian
from sfumato.core.gate import Plan
from sfumato.core.project import Project
from sfumato.report.claims import claims
from sfumato.report.collect import collect
from sfumato.report.page import CLOSE, OPEN, render
from sfumato.report.sources import Sources
from sfumato.report.verify import check, read


@pytest.fixture(scope="module")
def page(full) -> str:
    assert full.run("report", "-o", "page.html") == 0
    return (full.root / "page.html").read_text()


def wrong(change: str) -> tuple[str, str]:
    """Return what is replaced by what, by the name of a change."""
    return {
        "a number hidden by style": ("</style>", ".big{visibility:hidden}</style>"),
        "a number overlaid by style": ("</style>", '.big::before{content:"9";position:absolute}</style>'),
        "a second style": ("</head>", "<style>.warn{display:none}</style></head>"),
        "text after the end": ("</html>\n", "</html>\nepsilon 0\n"),
        "a space after the end": ("</html>\n", "</html>\n "),
        "a second script": ("</body>", "<script>document.title=1</script></body>"),
        "claims before the claims": ("<main>", f"<main>{OPEN}{{}}{CLOSE}"),
        "claims after the claims": ("</body>", f"{OPEN}{{}}{CLOSE}</body>"),
        "a comment": ("<main>", "<main><!-- seen -->"),
        "another policy for loading": ("default-src &#x27;none&#x27;", "default-src *"),
        "a direction turned": ("<main>", "<main>\u202e"),
        "a claim twice": (OPEN + "{", OPEN + '{"format":"sfumato-report/1",'),
        "spaces in the claims": (OPEN + "{", OPEN + "{ "),
        "a link elsewhere": ('href="#glance"', 'href="https://example.org"'),
        "a mark at the front": ("<!DOCTYPE", "\ufeff<!DOCTYPE"),
    }[change]


@pytest.mark.parametrize(
    "change",
    [
        "a number hidden by style",
        "a number overlaid by style",
        "a second style",
        "text after the end",
        "a space after the end",
        "a second script",
        "claims before the claims",
        "claims after the claims",
        "a comment",
        "another policy for loading",
        "a direction turned",
        "a claim twice",
        "spaces in the claims",
        "a link elsewhere",
        "a mark at the front",
    ],
)
def test_a_changed_page_does_not_hold(full, page: str, tmp_path: Path, change: str) -> None:
    before, after = wrong(change)
    assert before in page
    path = tmp_path / "page.html"
    path.write_text(page.replace(before, after, 1))
    with pytest.raises(IntegrityError):
        check(full.project(), path)


def test_every_claim_is_held_to_what_follows(full, page: str, tmp_path: Path) -> None:
    """Each value changed alone, with the page drawn to fit it: some of them, so as to be quick."""
    data = json.loads(page[page.index(OPEN) + len(OPEN) : page.rindex(CLOSE)])
    path = tmp_path / "page.html"
    for claim in list(claims(data))[::41]:
        forged = json.loads(json.dumps(data))
        *steps, last = claim.path.split(".")
        place = forged
        for step in steps:
            place = place[int(step)] if isinstance(place, list) else place.get(step, place)
        key = int(last) if isinstance(place, list) else last
        if isinstance(place, dict) and key not in place:
            continue  # a name with a dot in it
        place[key] = (not claim.value) if isinstance(claim.value, bool) else f"{claim.value}0"
        try:
            path.write_text(render(forged))
        except (ValueError, KeyError, TypeError):
            continue
        with pytest.raises(IntegrityError):
            check(full.project(), path)


@pytest.fixture
def clinic(full, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A copy that a test may harm, with a copy of the anchor that vouches for it."""
    root = tmp_path / "copy"
    shutil.copytree(full.root, root)
    shutil.copytree(os.environ["XDG_STATE_HOME"], tmp_path / "state")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(root)
    return type(full)(root, full.patch)


def kinds_of(root: Path) -> dict[str, int]:
    """Return the first row of each kind."""
    book = sqlite3.connect(root / ".sfumato" / "ledger.db")
    found = dict(book.execute("SELECT kind, min(seq) FROM entries GROUP BY kind").fetchall())
    book.close()
    return found


def harm(root: Path, target: int, *, forge: bool) -> None:
    """Change one row, and with `forge` make the chain after it fit again."""
    book = sqlite3.connect(root / ".sfumato" / "ledger.db")
    book.execute("DROP TRIGGER no_update")
    prev = None
    rows = book.execute("SELECT seq, kind, share, ref, body, prev, hash FROM entries ORDER BY seq").fetchall()
    for seq, kind, share, ref, text, old, own in rows:
        body = json.loads(text)
        if seq == target:
            body["note"] = "seen"
        if seq >= target and (forge or seq == target):
            text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            old = prev if forge and prev else old
            own = row_hash(seq, kind, share, ref, body, old) if forge else own
            book.execute(
                "UPDATE entries SET body = ?, prev = ?, hash = ? WHERE seq = ?", (text, old, own, seq)
            )
        prev = own
    book.commit()
    book.close()


@pytest.mark.parametrize("forge", [False, True], ids=["raw", "forged"])
def test_a_changed_row_of_any_kind_is_named(clinic, forge: bool) -> None:
    whole = (clinic.root / ".sfumato" / "ledger.db").read_bytes()
    kinds = kinds_of(clinic.root)
    assert {"genesis", "population", "share", "reserve", "settle", "void", "refusal", "version"} <= set(kinds)
    for kind, row in kinds.items():
        harm(clinic.root, row, forge=forge)
        with pytest.raises(IntegrityError, match=rf"(?i)row {row} ") as caught:
            check(clinic.project(), clinic.root / "page.html")
        assert caught.value.exit_code == 5, kind
        (clinic.root / ".sfumato" / "ledger.db").write_bytes(whole)
    check(clinic.project(), clinic.root / "page.html")


def test_rows_cut_off_show(clinic) -> None:
    book = sqlite3.connect(clinic.root / ".sfumato" / "ledger.db")
    book.execute("DROP TRIGGER no_delete")
    book.execute("DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)")
    book.commit()
    book.close()
    with pytest.raises(IntegrityError, match="cut"):
        check(clinic.project(), clinic.root / "page.html")


def test_a_lost_receipt_shows(clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.report.sources.PATIENCE", 0.1)
    for receipt in (clinic.root / ".sfumato" / "receipts").glob("*.json"):
        receipt.unlink()
    with pytest.raises(IntegrityError, match="receipt"):
        check(clinic.project(), clinic.root / "page.html")
    assert clinic.run("report", "-o", "without.html") == 0
    check(clinic.project(), clinic.root / "without.html")


def test_a_report_of_another_version_says_so(clinic) -> None:
    _, data = read(clinic.root / "page.html")
    data["project"]["made_with"] = "Sfumato 9.9"
    (clinic.root / "page.html").write_text(render(data))
    with pytest.raises(IntegrityError, match=r"made with 'Sfumato 9\.9'"):
        check(clinic.project(), clinic.root / "page.html")


def test_a_report_of_tomorrow_is_refused(clinic) -> None:
    _, data = read(clinic.root / "page.html")
    clinic.release(Gaussian(60))
    data["extent"]["at"] = "2099-01-01T00:00:00.000000+00:00"
    (clinic.root / "page.html").write_text(render(data))
    with pytest.raises(IntegrityError, match=r"extent\.at"):
        check(clinic.project(), clinic.root / "page.html")


def test_reports_made_while_others_release_hold(clinic) -> None:
    """A row may come between any two steps of making a report."""
    stop = threading.Event()
    faults: list[BaseException] = []

    def charge() -> None:
        try:
            while not stop.is_set():
                plan = Plan(
                    action="redact",
                    mechanism="redaction",
                    guarantee="heuristic",
                    statement="faces that were found are covered",
                    purpose="planning",
                )
                project = Project(clinic.root)
                with project.gate().open(plan) as permit:
                    permit.releasing()
                    permit.settle()
                project.close()
        except BaseException as fault:
            faults.append(fault)

    clinic.act("cleo")
    other = threading.Thread(target=charge)
    other.start()
    made = []
    try:
        for index in range(6):
            sources = Sources.now(clinic.project())
            path = clinic.root / f"race{index}.html"
            path.write_text(render(collect(sources)))
            sources.close()
            made.append(path)
    finally:
        stop.set()
        other.join()
    assert faults == []
    for path in made:
        check(clinic.project(), path)
    assert read(made[-1])[1]["extent"]["rows"] > read(made[0])[1]["extent"]["rows"]


def test_the_waited_for_receipt_is_on_the_page(clinic) -> None:
    receipts = clinic.root / ".sfumato" / "receipts"
    clinic.release(Gaussian(60))
    newest = max(receipts.glob("[0-9]*.json"))
    aside = clinic.root / "aside.json"
    newest.rename(aside)
    back = threading.Timer(0.4, aside.rename, [newest])
    back.start()
    sources = Sources.now(clinic.project())
    assert collect(sources)["releases"]["newest"][0]["receipt_kept"]
    sources.close()
    back.join()


def test_names_nowhere(clinic, capfd) -> None:
    """The id of who asks stands in no file, no name of one, and no line that is printed."""
    clinic.act("maria")
    asked = "patient-Zoë-4711"
    assert clinic.run("report", "--subject", asked, "--population", "patients") == 0
    assert clinic.run("report", "--subject", "", "--population", "patients") == 2
    said = capfd.readouterr()
    assert "4711" not in said.out + said.err
    for path in clinic.root.rglob("*"):
        assert "4711" not in path.name
        if path.is_file():
            raw = path.read_bytes()
            assert b"patient-Zo" not in raw
            assert "Zoë".encode() not in raw


def test_an_unknown_person_is_answered_in_the_same_form(clinic) -> None:
    clinic.act("maria")
    shapes = []
    for asked in ("008", "nobody at all"):
        assert clinic.run("report", "--subject", asked, "--population", "patients", "-o", "one.html") == 0
        text, data = read(clinic.root / "one.html")
        shapes.append((sorted(data), sorted(data["subject"]), re.findall(r"<h2[^>]*>([^<]*)", text)))
        check(clinic.project(), clinic.root / "one.html")
    assert shapes[0] == shapes[1]
