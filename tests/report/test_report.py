"""The page says what the books say, holds nothing else, and every change of it or of them shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sfumato.core.errors import IntegrityError
from sfumato.core.event import Gaussian
from sfumato.core.numbers import brief
from sfumato.core.policy import Policy, PolicyError
from sfumato.core.project import Project
from sfumato.report.claims import claims, difference
from sfumato.report.collect import collect
from sfumato.report.page import embed, render
from sfumato.report.sources import Sources
from sfumato.report.verify import check, read


@pytest.fixture(scope="module")
def page(full) -> Path:
    assert full.run("report", "-o", "page.html") == 0
    return full.root / "page.html"


@pytest.fixture(scope="module")
def data(page: Path) -> dict:
    return read(page)[1]


@pytest.fixture
def clinic(full, page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A copy that a test may harm, with a copy of the anchor that vouches for it."""
    root = tmp_path / "copy"
    shutil.copytree(full.root, root)
    shutil.copytree(os.environ["XDG_STATE_HOME"], tmp_path / "state")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(root)
    return type(full)(root, full.patch)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.captions = [], [], [], [], 0
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "wbr"):
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.append((name, value or ""))
            if name == "id":
                self.ids.append(value)
            if name == "href":
                self.links.append(value)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def parsed(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text())
    reader.close()
    return reader


# The page


def test_the_page_is_whole_and_loads_nothing(page: Path) -> None:
    reader = parsed(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert all(link.startswith("#") for link in reader.links)
    assert {link[1:] for link in reader.links} <= set(reader.ids)
    assert not {name for name, _ in reader.attributes} & {
        "src",
        "srcset",
        "onload",
        "onclick",
        "style",
        "action",
    }
    assert not set(reader.tags) & {"link", "img", "iframe", "object", "embed", "form", "base"}
    assert reader.tags.count("script") == 1  # the claims, which are data
    assert reader.tags.count("caption") == reader.tags.count("table")
    text = page.read_text()
    assert "url(" not in text
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert "default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;; img-src data:" in text


def test_names_from_outside_stay_text(page: Path) -> None:
    text = page.read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in text
    assert "<bdi>قسم" in text
    assert "你好" in text


@pytest.mark.parametrize("word", ["Ann", "Ratched", "visits.csv", "007", "rows.parquet", "board said"])
def test_nothing_personal_is_on_the_page(page: Path, word: str) -> None:
    text = re.sub(r"[0-9a-f]{12,}|0\.\d+", "", page.read_text())
    assert not re.search(rf"\b{word}\b", text)


def test_no_pseudonym_is_on_the_page(page: Path, full) -> None:
    catalogue = full.root / ".sfumato" / "catalogue"
    held = re.findall(
        r'"subject": "([0-9a-f]{32})"', "".join(p.read_text() for p in catalogue.rglob("*.json"))
    )
    rows = (
        sqlite3.connect(full.root / ".sfumato" / "consent.db").execute("SELECT share FROM entries").fetchall()
    )
    names = {*held, *(share.rpartition("/")[2] for (share,) in rows if share)}
    assert names
    assert not [name for name in names if name in page.read_text()]


# The figures


def test_budgets_are_those_of_the_ledger(data: dict, full) -> None:
    ledger = full.project().book()
    shown = {(s["population"], s["share"]): (s["spent_epsilon"], s["spent_delta"]) for s in data["shares"]}
    for one in ledger.balances():
        assert shown[one.population, one.share] == (brief(one.spent_epsilon), brief(one.spent_delta))
    ledger.close()


def test_the_figures(data: dict, full) -> None:
    releases = data["releases"]
    assert releases["count"] == 11
    assert {kind: one["count"] for kind, one in releases["by_guarantee"].items()} == {
        "proven": 9,
        "tested": 1,
        "heuristic": 1,
    }
    assert releases["by_state"] == {"released": 9, "taken back": 1, "unfinished": 1}
    assert sum(month["count"] for month in releases["months"]) == releases["count"]
    assert [rule["rule"] for rule in data["refusals"]["rules"]] == ["purposes", "purposes.care.expires"]
    assert data["erasures"]["count"] == 1
    assert [one["version"] for one in data["retention"]["due"]] == ["rota@1"]
    project = full.project()
    counts = {one["purpose"]: (one["given"], one["withdrawn"]) for one in data["consent"]}
    assert counts == {name: tuple(count.values()) for name, count in project.consent.counts().items()}
    ledger = project.book()
    assert data["integrity"]["merkle_root"] == ledger.root(data["extent"]["rows"])
    ledger.close()
    project.close()
    raised = data["raises"][0]
    assert (raised["from_epsilon"], raised["to_epsilon"]) == ("3", "4")
    assert raised["proposed_by"] != raised["approved_by"]


def test_every_release_of_a_filter_costs_nothing(data: dict) -> None:
    for one in data["releases"]["newest"]:
        assert bool(one["charges"]) == (one["guarantee"] == "proven")


def test_every_figure_names_a_source(data: dict) -> None:
    bare = [
        c.path for c in claims(data) if not c.source and not c.path.startswith(("extent", "format", "kind"))
    ]
    assert bare == []
    named = {row["row"] for row in data["rows"]}
    for claim in claims(data):
        assert set(claim.source.get("rows", ())) <= named


def test_safe_harbor_reads_names(data: dict) -> None:
    found = {one["letter"]: one for one in data["hipaa"]["identifiers"]}
    assert len(found) == 18
    assert found["C"]["handled"] == "generalised"
    assert "does not satisfy" in found["C"]["note"]  # months are finer than years
    assert found["D"]["handled"] == "not known"


def test_what_the_policy_does_not_say_is_to_be_completed(data: dict) -> None:
    record = data["article_30"]
    assert record["controller"] == "St. Ada Hospital Trust"
    assert record["dpo"].startswith("to be completed: [project] dpo")
    by_name = {one["purpose"]: one for one in record["activities"]}
    assert by_name["research"]["recipients"] == ["the ethics board", "University of Example"]
    assert by_name["care"]["recipients"][0].startswith("to be completed")


def test_json_has_every_release(full, capsys) -> None:
    capsys.readouterr()
    assert full.run("report", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["releases"]["newest"]) == 11


# Verifying


def test_a_report_holds(full, page: Path, capsys) -> None:
    assert full.run("report", "--verify", str(page), "--json") == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True


def test_later_rows_and_another_policy_change_nothing(clinic) -> None:
    clinic.release(Gaussian(50))
    clinic.act("maria")
    policy = clinic.root / "sfumato.toml"
    policy.write_text(policy.read_text() + "\n[redact]\nhide = ['face']\n")
    assert clinic.run("consent", "withdraw", "007", "--purpose", "research", "--population", "patients") == 0
    assert clinic.run("data", "retire", "visits", "--reason", "over") == 0
    check(clinic.project(), clinic.root / "page.html")


@pytest.mark.parametrize("row", [4, 12, 25])
def test_an_edited_row_is_named(clinic, row: int) -> None:
    book = sqlite3.connect(clinic.root / ".sfumato" / "ledger.db")
    book.execute("DROP TRIGGER no_update")
    book.execute("UPDATE entries SET body = replace(body, '2026', '2016') WHERE seq = ?", (row,))
    book.execute("UPDATE entries SET body = replace(body, '202', '201') WHERE seq = ?", (row,))
    book.commit()
    book.close()
    with pytest.raises(IntegrityError, match=rf"row {row} of the ledger.*On it rest") as caught:
        check(clinic.project(), clinic.root / "page.html")
    assert caught.value.exit_code == 5


def test_raw_bytes_changed_in_the_file_are_named(clinic) -> None:
    path = clinic.root / ".sfumato" / "ledger.db"
    raw = path.read_bytes()
    assert raw.count(b'"mechanism":"median"') == 1
    path.write_bytes(raw.replace(b'"mechanism":"median"', b'"mechanism":"medium"'))
    with pytest.raises(IntegrityError, match=r"row \d+ of the ledger.*releases"):
        check(clinic.project(), clinic.root / "page.html")


def test_a_row_with_a_chain_forged_after_it_is_named(clinic) -> None:
    from sfumato.core.book import row_hash

    path = clinic.root / ".sfumato" / "ledger.db"
    book = sqlite3.connect(path)
    book.execute("DROP TRIGGER no_update")
    prev, forged = "", 0
    for seq, kind, share, ref, body, old in book.execute(
        "SELECT seq, kind, share, ref, body, prev FROM entries ORDER BY seq"
    ).fetchall():
        body = json.loads(body)
        if kind == "refusal" and not forged:
            forged = seq
            body["rule"] = "purposes.other"
        own = row_hash(seq, kind, share, ref, body, prev or old)
        spelled = json.dumps(body, sort_keys=True, separators=(",", ":"))
        book.execute(
            "UPDATE entries SET body = ?, prev = ?, hash = ? WHERE seq = ?", (spelled, prev or old, own, seq)
        )
        prev = own
    book.commit()
    book.close()
    with pytest.raises(IntegrityError, match=f"row {forged} of the ledger"):
        check(clinic.project(), clinic.root / "page.html")


def test_a_number_changed_on_the_page_is_found(clinic) -> None:
    path = clinic.root / "page.html"
    text = path.read_text()
    path.write_text(text.replace('<dd class="big">11</dd>', '<dd class="big">10</dd>'))
    with pytest.raises(IntegrityError, match=r"releases\.count"):
        check(clinic.project(), path)
    path.write_text(text)
    check(clinic.project(), path)


def test_a_claim_changed_with_its_page_is_found(clinic, data: dict) -> None:
    path = clinic.root / "page.html"
    for change, named in (
        (lambda d: d["refusals"].update(count=1), "refusals.count says 1, and 2 follows from rows"),
        (lambda d: d["shares"][0].update(left_epsilon="1.9"), "shares.0.left_epsilon"),
        (lambda d: d["purposes"][0].update(lawful_basis="contract"), "purposes.research in the policy"),
        (lambda d: d["consent"][0].update(given=9), "consent register"),
        (lambda d: d["versions"][0].update(subjects=1), "versions.0.subjects"),
        (lambda d: d["releases"]["newest"][0].update(guarantee="proven"), "releases.newest.0.guarantee"),
        (lambda d: d["refusals"].update({"from": {"rows": [1, 25]}}), "as its source"),
        (lambda d: d["releases"]["newest"].pop(), "is missing"),
        (lambda d: d["extent"].update(at="2020-01-01T00:00:00.000000+00:00"), "extent.at"),
        (lambda d: d["extent"].update(policy="0" * 64), "policy with SHA-256"),
        (lambda d: d["extent"].update(rows=d["extent"]["rows"] - 1), "of the ledger is not the one"),
    ):
        forged = json.loads(json.dumps(data))
        change(forged)
        path.write_text(render(forged))
        with pytest.raises(IntegrityError) as caught:
            check(clinic.project(), path)
        assert named in str(caught.value)


def test_a_changed_receipt_is_found(clinic) -> None:
    receipt = sorted((clinic.root / ".sfumato" / "receipts").glob("*.json"))[0]
    receipt.write_text(receipt.read_text().replace("differentially private", "differently private"))
    with pytest.raises(IntegrityError, match="digest"):
        check(clinic.project(), clinic.root / "page.html")


@pytest.mark.parametrize(
    "content", ["", "<html></html>", '<script type="application/json" id="claims">[]</script>']
)
def test_what_is_no_report_is_refused(clinic, content: str) -> None:
    (clinic.root / "other.html").write_text(content)
    assert clinic.run("report", "--verify", "other.html") == 5


def test_the_report_of_another_project_is_refused(page: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="this is a report of ledger"):
        check(Project.init(tmp_path / "other"), page)


# One person


@pytest.fixture
def answer(clinic) -> tuple[Path, dict]:
    assert clinic.run("report", "--subject", "007", "--population", "patients") == 0
    (path,) = clinic.root.glob("answer-*.html")
    return path, read(path)[1]


def test_the_answer_to_one_person(clinic, answer) -> None:
    path, data = answer
    mine = data["subject"]
    held = {one["version"]: one["state"] for one in mine["versions"]}
    assert held == {
        "visits@1": "holds data of this person",
        "visits@2": "holds data of this person",
        "rota@1": "holds no data of this person",
    }
    assert [(one["purpose"], one["kind"]) for one in mine["consents"]] == [("research", "given")]
    assert mine["purposes"] == ["research", "care"]
    assert "007" not in path.name
    assert not re.search(r"\b007\b", path.read_text())
    assert path.stat().st_mode & 0o077 == 0
    assert clinic.run("report", "--verify", path.name) == 0


def test_another_person_gets_another_answer(clinic) -> None:
    assert clinic.run("report", "--subject", "nobody", "--population", "patients", "-o", "n.html") == 0
    mine = read(clinic.root / "n.html")[1]["subject"]
    assert {one["state"] for one in mine["versions"]} == {"holds no data of this person"}
    assert mine["consents"] == []


def test_an_answer_that_leaves_a_version_out_is_found(clinic, answer) -> None:
    path, data = answer
    data["subject"]["versions"][1]["state"] = "holds no data of this person"
    path.write_text(render(data))
    assert clinic.run("report", "--verify", path.name) == 5


def test_whose_people_has_to_be_said(clinic, capsys) -> None:
    assert clinic.run("report", "--subject", "007") == 2
    assert "patients, staff" in capsys.readouterr().err
    assert clinic.run("report", "--subject", "007", "--population", "patient") == 2
    assert clinic.run("report", "--population", "patients") == 2


# Around it


def test_an_empty_project_has_a_report(tmp_path: Path, monkeypatch, full) -> None:
    project = Project.init(tmp_path)
    sources = Sources.now(project)
    (tmp_path / "report.html").write_text(render(collect(sources)))
    sources.close()
    check(project, tmp_path / "report.html")
    parsed(tmp_path / "report.html")


def test_the_claims_cannot_end_their_element() -> None:
    assert "<" not in embed({"a": "</script><script>"})
    assert json.loads(embed({"a": "</script>&"})) == {"a": "</script>&"}


def test_a_difference_of_kinds_shows() -> None:
    assert "true" in difference({"a": 1}, {"a": True})
    assert difference({"a": [1]}, {"a": [1]}) == ""


@pytest.mark.parametrize(
    "line",
    [
        '[project]\nname = "x"\ncontroller = "a\\nb"',
        '[datasets.a]\ncategories = ["helth"]',
        "[project]\nname='x'\ndpo=3",
    ],
)
def test_the_new_keys_are_checked(line: str) -> None:
    with pytest.raises(PolicyError):
        Policy.parse(line if "[project]" in line else f'[project]\nname = "x"\n{line}')


def test_a_pdf(clinic) -> None:
    pytest.importorskip(
        "weasyprint", reason="needs WeasyPrint: pip install 'sfumato[report]'", exc_type=ImportError
    )
    try:
        import weasyprint  # noqa: F401
    except OSError:
        pytest.skip("needs Pango: apt-get install libpango-1.0-0 libpangoft2-1.0-0")
    assert clinic.run("report", "--pdf", "-o", "out.html") == 0
    drawn = (clinic.root / "out.pdf").read_bytes()
    assert drawn.startswith(b"%PDF-")
    assert len(drawn) > 20_000


def test_a_missing_extra_says_what_to_do(clinic, monkeypatch, capsys) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "weasyprint", None)
    assert clinic.run("report", "--pdf", "-o", "none.html") == 2
    assert "sfumato[report]" in capsys.readouterr().err
    assert not (clinic.root / "none.html").exists()


#: Hosts that Chromium asks by itself, whatever it shows.
MAKER = ("google", "gvt1.com", "gstatic.com")


def requests(page: Path, folder: Path) -> tuple[str, set[str]]:
    """Open a page in headless Chromium, which resolves no name; return its text and what it asked for."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    log = folder / "net.json"
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
    places = (f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}")
    result = subprocess.run(
        [browser, *options, "--host-resolver-rules=MAP * ~NOTFOUND", *places, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    record = json.loads(log.read_text())
    name = record["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = {
        e["params"]["url"] for e in record["events"] if e["type"] == name and "url" in e.get("params", {})
    }
    known = ("chrome", "devtools", "data:", page.as_uri())
    return result.stdout, {u for u in asked if not u.startswith(known) and not any(m in u for m in MAKER)}


def test_a_browser_opens_it_and_asks_for_nothing(page: Path, tmp_path: Path) -> None:
    text, asked = requests(page, tmp_path)
    assert "Transparency report" in text
    assert asked == set()


def test_a_page_that_asks_for_something_is_found_out(tmp_path: Path) -> None:
    leaky = tmp_path / "leaky.html"
    leaky.write_text('<html><img src="http://tracker.example/pixel.png"></html>')
    assert requests(leaky, tmp_path)[1] == {"http://tracker.example/pixel.png"}
