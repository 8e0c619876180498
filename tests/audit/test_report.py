"""What an audit says, to people, to programs and as a picture."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import sfumato.audit
from sfumato.audit.attacks import CATALOGUE, Attacked, Observed
from sfumato.audit.canaries import Guesses
from sfumato.audit.findings import Finding, judged
from sfumato.audit.plot import draw
from sfumato.audit.report import Bound, Report
from sfumato.audit.subject import Claim
from sfumato.core.errors import AuditFailed
from sfumato.core.receipt import Receipt

CLAIM = Claim(2.0, 0.1, 100, 1e-5, 1.5)


def report(lower: float = 0.5, p: float = 0.3, attacks: tuple[Attacked, ...] = ()) -> Report:
    bound = Bound("f-DP in one run", lower, 4.0, Guesses(60, 100, 1000), 0.4)
    findings = judged([Finding("noise-deviation", "deviation 2", p), Finding("clip-bound", "1 at most", 1.0)])
    return Report(CLAIM, 1000, 0.95, (bound,), findings, attacks, ("the sampling law: none given",))


def test_a_bound_below_the_claim_passes_and_all_three_numbers_are_told() -> None:
    text = "\n".join(report().lines())
    assert report().ok
    for part in ("epsilon 0.5", "epsilon 4", "epsilon 1.5", "60 of 100", "not tested", "Tested, not proven"):
        assert part in text
    assert report().guarantee()["type"] == "tested"
    assert "0.5" in report().guarantee()["statement"]
    Receipt({"guarantee": report().guarantee(), "outputs": []}).verify()


@pytest.mark.parametrize(("lower", "p"), [(1.51, 0.3), (0.5, 1e-9)])
def test_a_bound_above_the_claim_or_a_broken_promise_blocks(lower: float, p: float) -> None:
    bad = report(lower, p)
    assert not bad.ok
    assert "DO NOT RELEASE" in "\n".join(bad.lines())
    with pytest.raises(AuditFailed) as caught:
        bad.require()
    assert caught.value.exit_code == 1
    assert len(caught.value.reasons) == 1


def test_an_attack_blocks_only_where_its_bound_rests_on_coins() -> None:
    scores = np.concatenate([np.full(200, 5.0), np.zeros(200)])
    member = np.arange(400) < 200
    found = CATALOGUE.build("membership").run(Observed(scores, member, coins=True))
    assert found.epsilon > CLAIM.epsilon
    assert not report(attacks=(found,)).ok
    assumed = replace(found, assumes="examples are independent")
    assert report(attacks=(assumed,)).ok
    assert "if examples are independent" in "\n".join(report(attacks=(assumed,)).lines())


def test_it_goes_into_json() -> None:
    data = json.loads(json.dumps(report().to_data(), allow_nan=False))
    assert (data["epsilon_lower"], data["ceiling"], data["claim"]["epsilon"]) == (0.5, 4.0, 1.5)
    assert data["findings"][0]["test"] == "noise-deviation"


def test_findings_are_judged_together() -> None:
    """Holm: as many as there are share the false alarms, and one that is found leaves more to the rest."""
    assert [one.broken for one in judged([Finding("a", "", 4e-7)])] == [True]
    assert [one.broken for one in judged([Finding("a", "", 7e-7), Finding("b", "", 1.0)])] == [False, False]
    assert [one.broken for one in judged([Finding("a", "", 7e-7), Finding("b", "", 1e-8)])] == [True, True]


@pytest.mark.parametrize("lower", [0.0, 0.5, 3.0])
def test_the_picture_is_well_formed_and_says_it_in_words(lower: float, tmp_path: Path) -> None:
    report(lower).write_svg(tmp_path / "audit.svg")
    root = ElementTree.parse(tmp_path / "audit.svg").getroot()
    assert "claim 1.5" in root.attrib["aria-label"]
    width, height = (float(number) for number in root.attrib["viewBox"].split()[2:])
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(rect.attrib.get("x", 0)) + float(rect.attrib["width"]) <= width + 0.2
        assert float(rect.attrib.get("y", 0)) <= height
    colours = {rect.attrib["fill"] for rect in root.iter("{http://www.w3.org/2000/svg}rect")}
    assert ("#a3261a" in colours) == (lower > 1.5)


def test_a_picture_of_nothing_and_of_hostile_names() -> None:
    ElementTree.fromstring(draw(0.0, [], []))
    ElementTree.fromstring(draw(1.0, [("<script>&", 0.1, 2.0)], [('"x"', 0.0, True)]))


def test_listing_attacks_loads_no_audit_and_nothing_loads_torch() -> None:
    code = (
        "import sys; from sfumato.audit.attacks import CATALOGUE as c; [c.load(n).summary for n in c.names];"
        "assert 'sfumato.audit.run' not in sys.modules and 'dp_accounting' not in sys.modules;"
        "import sfumato.audit.run, sfumato.audit.direct; from sfumato.audit import audit, Claim;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        sfumato.audit.nothing  # noqa: B018
