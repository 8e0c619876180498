"""Views of blocks: they hold these people and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.core.errors import InvalidRequest, PolicyRefused
from sfumato.core.gate import Gate
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy
from sfumato.data.blocks import blocks_of, restrict
from sfumato.data.catalogue import Catalogue
from sfumato.data.store import Place
from sfumato.data.version import Facts, Item, Version


def _added(catalogue: Catalogue, door: Gate, label: str, people: list[str], blocks: tuple = ()) -> Version:
    items = [Item(f"{one}.p", "0" * 64, 1, Place("d", "1", f"{one}.p", one), 1) for one in people]
    facts = Facts(reader="csv", unit="id", population="p", populations=("p",))
    version = catalogue.add("d", label, items, facts, ())
    _record(door, version, "csv", blocks)
    return version


def _record(door: Gate, version: Version, how: str, blocks: tuple) -> None:
    door.record_version(
        dataset=version.dataset,
        label=version.label,
        hash=version.hash,
        how=how,
        parents=version.parents,
        populations={"p": blocks},
    )


@pytest.mark.parametrize("rule", ["hash 4", "enrolment month"])
def test_people_stay_in_their_block_and_views_hold_only_theirs(
    tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfumato.core.ledger._now", lambda: "2026-01-31T00:00:00.000000+00:00")
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=1, delta=0, unit="person", blocks=rule)
    ledger.open_share("p", "all", kind="filter", epsilon=1, delta=0)
    door, catalogue = Gate(Policy.parse('[project]\nname = "t"'), ledger), Catalogue(tmp_path)
    _added(catalogue, door, "1", ["00", "01"])
    before = blocks_of(catalogue, ledger, "p")
    monkeypatch.setattr("sfumato.core.ledger._now", lambda: "2026-02-01T00:00:00.000000+00:00")
    newer = _added(catalogue, door, "2", ["00", "02", "03"])  # 01 left; 00 was there before
    monkeypatch.setattr("sfumato.core.ledger._now", lambda: "2025-01-01T00:00:00.000000+00:00")
    _added(catalogue, door, "3", ["01", "04"])  # 01 is back, and the clock was set back
    after = blocks_of(catalogue, ledger, "p")
    assert {one: after[one] for one in before} == before
    if rule == "enrolment month":
        assert after == {"00": "2026-01", "01": "2026-01", "02": "2026-02", "03": "2026-02", "04": "2026-02"}
    view = restrict(catalogue, ledger, newer, (after["02"],), "few")
    assert {item.subject for item in view.items} == {
        one for one in ("00", "02", "03") if after[one] == after["02"]
    }
    _record(door, view, "blocks", (after["02"],))
    with pytest.raises(PolicyRefused, match="Only blocks"):
        restrict(catalogue, ledger, view, (after["00"],), "fewer")


def test_items_about_many_are_refused(tmp_path: Path) -> None:
    ledger = Ledger(":memory:")
    ledger.open_population("p", epsilon=1, delta=0, unit="person", blocks="hash 4")
    door, catalogue = Gate(Policy.parse('[project]\nname = "t"'), ledger), Catalogue(tmp_path)
    version = _added(catalogue, door, "1", [""])
    with pytest.raises(InvalidRequest, match="partition"):
        restrict(catalogue, ledger, version, ("h000",), "few")
