from __future__ import annotations

import json
import logging

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from sfumato.core.errors import IntegrityError, InvalidRequest, PolicyRefused
from sfumato.core.gate import Gate
from sfumato.core.ledger import Ledger
from sfumato.core.policy import Policy
from sfumato.core.receipt import Receipt
from sfumato.data.contents import table
from sfumato.data.export import Wish, export
from sfumato.data.lineage import copy, merge
from sfumato.data.use import use_in

POLICY = """
[project]
name = "test"
[purposes.research]
actions = ["export"]
[purposes.care]
[purposes.teaching]
actions = ["export"]
compatible_with = ["research"]
[purposes.old]
actions = ["export"]
expires = 2020-01-31
[purposes.board]
actions = ["export"]
roles = ["auditor"]
[populations.patients]
unit = "patient"
epsilon = 1
[datasets.clinic]
purposes = ["research"]
population = "patients"
"""

#: Of mlcroissant's own dependencies.
pytestmark = pytest.mark.filterwarnings(
    "ignore:ConjunctiveGraph is deprecated:DeprecationWarning", "ignore:The inplace keyword"
)

RESEARCH = Wish(terms={"license": "https://example.org/terms"})


def let_out(gate, room, version, out, wish=RESEARCH, purpose="research"):
    used = use_in(room.catalogue, room.store, gate, version.spec, purpose, "export")
    return export(gate, used, out, wish)


@pytest.fixture
def gate(room) -> Gate:
    given = "".join(f'[datasets.{name}]\npurposes = ["research"]\n' for name in ("gate", "records", "b"))
    return Gate(Policy.parse(POLICY + given), Ledger(":memory:"))


def load(path):
    """Let mlcroissant read and check a description; it needs no network for that."""
    mlc = pytest.importorskip("mlcroissant", reason="the independent validator: pip install mlcroissant")
    with pytest.MonkeyPatch.context() as patch:
        import socket

        patch.setattr(socket, "socket", None)
        return mlc.Dataset(jsonld=str(path))


def test_a_table_goes_out_with_its_description_and_receipt(room, visits, gate) -> None:
    version = room.add("clinic", visits).version
    out = room.folder / "out"
    receipt = let_out(gate, room, version, out)
    assert sorted(path.name for path in out.iterdir()) == ["croissant.json", "receipt.json", "rows.parquet"]
    assert pq.read_table(out / "rows.parquet").equals(table(room.store, version))
    assert Receipt.read(out / "receipt.json").digest == receipt.digest
    assert receipt.guarantee == "heuristic"
    assert receipt.verify_files([out / "rows.parquet", out / "croissant.json"]) == ()
    assert receipt.recorded
    assert not [path for path in room.folder.iterdir() if path.name.startswith(".sfumato-")]


def test_the_description_of_a_table_is_croissant(room, visits, gate, caplog) -> None:
    version = room.add("clinic", visits).version
    let_out(gate, room, version, room.folder / "out")
    with caplog.at_level(logging.WARNING):
        dataset = load(room.folder / "out" / "croissant.json")
    assert dataset.metadata.name == "clinic"
    assert "not standard" not in caplog.text
    assert "croissant/1.1" in str(dataset.metadata.conforms_to)
    records = list(dataset.records("rows"))
    assert [one["rows/age"] for one in records] == [b"40-49", b"40-49", b"40-49", b"70-79"]


def test_a_broken_description_is_refused(room, visits, gate) -> None:
    version = room.add("clinic", visits).version
    let_out(gate, room, version, room.folder / "out")
    path = room.folder / "out" / "croissant.json"
    data = json.loads(path.read_text())
    data["recordSet"][0]["field"][0]["source"]["fileObject"]["@id"] = "absent"
    path.write_text(json.dumps(data))
    mlc = pytest.importorskip("mlcroissant", reason="the independent validator: pip install mlcroissant")
    with pytest.raises(mlc.ValidationError):
        load(path)


def test_pictures_go_out_with_their_description(room, pictures, gate) -> None:
    version = room.add("gate", pictures, unit="file", keep=("folder",)).version
    out = room.folder / "out"
    let_out(gate, room, version, out)
    for item in version.items:
        assert (out / item.path).read_bytes() == room.store.get(item.name, item.home)
    dataset = load(out / "croissant.json")
    assert {one.id for one in dataset.metadata.distribution} == {"pictures", "records"}
    pixels = list(dataset.records("picture"))
    assert len(pixels) == 4
    assert pixels[0]["picture/pixels"].size == (16, 12)


def test_a_merge_goes_out(room, pictures, gate) -> None:
    one = room.add("records", pictures, unit="file", keep=("folder",)).version
    (pictures / "ann" / "1.jpg").unlink()
    two = room.add("b", pictures, unit="file", keep=("folder",)).version
    both = merge(room.catalogue, [one, two], "c")
    let_out(gate, room, both, room.folder / "out")
    dataset = load(room.folder / "out" / "croissant.json")
    assert len(list(dataset.records("picture"))) == 7


def test_rows_alone_as_csv_and_the_description_alone(room, visits, gate) -> None:
    version = room.add("clinic", visits).version
    rows, card = room.folder / "rows", room.folder / "card"
    let_out(gate, room, version, rows, Wish(only="rows", form="csv"))
    assert sorted(path.name for path in rows.iterdir()) == ["receipt.json", "rows.csv"]
    assert pyarrow.csv.read_csv(rows / "rows.csv").num_rows == 4
    receipt = let_out(gate, room, version, card, Wish(only="croissant"))
    assert sorted(path.name for path in card.iterdir()) == ["croissant.json", "receipt.json"]
    assert len(receipt.outputs) == 1
    assert load(card / "croissant.json").metadata.name == "clinic"


@pytest.mark.parametrize(
    ("purpose", "message"),
    [
        ("not declared", "declared purposes"),
        ("care", "does not allow the action 'export'"),
    ],
)
def test_the_gate_refuses(room, visits, gate, purpose, message) -> None:
    version = room.add("clinic", visits).version
    with pytest.raises(PolicyRefused, match=message):
        let_out(gate, room, version, room.folder / "out", purpose=purpose)
    assert not (room.folder / "out").exists()
    assert [row.kind for row in gate.ledger.entries()][1:] == ["refusal"]


def test_a_purpose_that_the_data_was_not_collected_for(room, visits, gate) -> None:
    section = room.policy.datasets["clinic"].model_copy(update={"purposes": ("care",)})
    room.policy = room.policy.model_copy(update={"datasets": {"clinic": section}})
    version = room.add("clinic", visits).version
    with pytest.raises(PolicyRefused, match="collected for: care"):
        let_out(gate, room, version, room.folder / "out")


def test_nothing_goes_out_of_a_broken_store(room, visits, gate) -> None:
    version = room.add("clinic", visits).version
    name = version.items[0].name
    (room.store.root / name[:2] / name[2:]).write_bytes(b"x")
    with pytest.raises(IntegrityError):
        let_out(gate, room, version, room.folder / "out")
    assert not (room.folder / "out").exists()
    assert [row.kind for row in gate.ledger.entries()][-2:] == ["reserve", "void"]


def test_a_folder_that_exists_is_left_alone(room, visits, gate) -> None:
    version = room.add("clinic", visits).version
    with pytest.raises(InvalidRequest, match="exists"):
        let_out(gate, room, version, room.folder)


@pytest.mark.parametrize(
    ("purpose", "rule"),
    [
        ("unheard of", "purposes"),
        ("care", "purposes.care.actions"),
        ("old", "purposes.old.expires"),
        ("board", "purposes.board.roles"),
    ],
)
def test_a_copy_is_held_to_the_rules_of_all_it_was_made_from(room, visits, gate, purpose, rule) -> None:
    version = copy(room.catalogue, room.add("clinic", visits).version, "cohort")
    with pytest.raises(PolicyRefused) as refused:
        let_out(gate, room, version, room.folder / "out", purpose=purpose)
    assert refused.value.rule == rule
    assert list(gate.ledger.entries())[-1].body["rule"] == rule


def test_reuse_that_the_policy_allows_today(room, visits, gate) -> None:
    version = copy(room.catalogue, room.add("clinic", visits).version, "cohort")
    let_out(gate, room, version, room.folder / "out", purpose="teaching")
    assert (room.folder / "out" / "rows.parquet").exists()


@pytest.mark.parametrize("dataset", ["clinic", "cohort"])
def test_what_the_policy_says_today_counts(room, visits, dataset) -> None:
    """The data was given for research when it came in, and no longer is."""
    version = room.add("clinic", visits).version
    if dataset != "clinic":
        version = copy(room.catalogue, version, dataset)
    today = POLICY.replace(
        '[datasets.clinic]\npurposes = ["research"]', '[datasets.clinic]\npurposes = ["care"]'
    )
    today = today.replace('compatible_with = ["research"]', "")
    gate = Gate(Policy.parse(today), Ledger(":memory:"))
    with pytest.raises(PolicyRefused, match="'clinic' was given for: care") as refused:
        let_out(gate, room, version, room.folder / "out")
    assert refused.value.rule == "datasets.clinic.purposes"


def test_a_dataset_that_the_policy_no_longer_names(room, visits) -> None:
    version = copy(room.catalogue, room.add("clinic", visits).version, "cohort")
    gate = Gate(Policy.parse(POLICY.split("[datasets.clinic]")[0]), Ledger(":memory:"))
    with pytest.raises(PolicyRefused, match="does not say what the dataset 'clinic'"):
        let_out(gate, room, version, room.folder / "out")


def test_a_version_whose_time_is_over_is_not_used(room, visits, gate) -> None:
    version = copy(room.catalogue, room.add("clinic", visits).version, "cohort")
    for days, over in ((0, True), (1, False)):
        policy = Policy.parse(POLICY + f"[retention.datasets]\nclinic = {days}\n")
        door = Gate(policy, Ledger(":memory:"))
        if over:
            with pytest.raises(PolicyRefused, match="is over: 0 days"):
                let_out(door, room, version, room.folder / "out")
        else:
            let_out(door, room, version, room.folder / "out")
