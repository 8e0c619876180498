from __future__ import annotations

import json
import logging

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from sfumato.core.errors import IntegrityError, InvalidRequest, PolicyRefused
from sfumato.core.gate import Gate
from sfumato.core.ledger import Ledger
from sfumato.core.receipt import Receipt
from sfumato.data.contents import table
from sfumato.data.export import Wish, export
from sfumato.data.lineage import merge

#: Of mlcroissant's own dependencies.
pytestmark = pytest.mark.filterwarnings(
    "ignore:ConjunctiveGraph is deprecated:DeprecationWarning", "ignore:The inplace keyword"
)

RESEARCH = Wish(purpose="research", terms={"license": "https://example.org/terms"})


@pytest.fixture
def gate(room) -> Gate:
    return Gate(room.policy, Ledger(":memory:"))


def load(path):
    """Let mlcroissant read and check a description; it needs no network for that."""
    mlc = pytest.importorskip("mlcroissant")
    with pytest.MonkeyPatch.context() as patch:
        import socket

        patch.setattr(socket, "socket", None)
        return mlc.Dataset(jsonld=str(path))


def test_a_table_goes_out_with_its_description_and_receipt(room, visits, gate) -> None:
    version = room.add("clinic", visits).version
    out = room.folder / "out"
    receipt = export(gate, room.store, version, out, RESEARCH)
    assert sorted(path.name for path in out.iterdir()) == ["croissant.json", "receipt.json", "rows.parquet"]
    assert pq.read_table(out / "rows.parquet").equals(table(room.store, version))
    assert Receipt.read(out / "receipt.json").digest == receipt.digest
    assert receipt.guarantee == "heuristic"
    assert receipt.verify_files([out / "rows.parquet", out / "croissant.json"]) == ()
    assert receipt.recorded
    assert not [path for path in room.folder.iterdir() if path.name.startswith(".sfumato-")]


def test_the_description_of_a_table_is_croissant(room, visits, gate, caplog) -> None:
    version = room.add("clinic", visits).version
    export(gate, room.store, version, room.folder / "out", RESEARCH)
    with caplog.at_level(logging.WARNING):
        dataset = load(room.folder / "out" / "croissant.json")
    assert dataset.metadata.name == "clinic"
    assert "not standard" not in caplog.text
    assert "croissant/1.1" in str(dataset.metadata.conforms_to)
    records = list(dataset.records("rows"))
    assert [one["rows/age"] for one in records] == [b"40-49", b"40-49", b"40-49", b"70-79"]


def test_a_broken_description_is_refused(room, visits, gate) -> None:
    version = room.add("clinic", visits).version
    export(gate, room.store, version, room.folder / "out", RESEARCH)
    path = room.folder / "out" / "croissant.json"
    data = json.loads(path.read_text())
    data["recordSet"][0]["field"][0]["source"]["fileObject"]["@id"] = "absent"
    path.write_text(json.dumps(data))
    mlc = pytest.importorskip("mlcroissant")
    with pytest.raises(mlc.ValidationError):
        load(path)


def test_pictures_go_out_with_their_description(room, pictures, gate) -> None:
    version = room.add("gate", pictures, unit="file", keep=("folder",)).version
    out = room.folder / "out"
    export(gate, room.store, version, out, RESEARCH)
    for item in version.items:
        assert (out / item.path).read_bytes() == room.store.get(item.name, item.home)
    dataset = load(out / "croissant.json")
    assert {one.id for one in dataset.metadata.distribution} == {"pictures", "records"}
    pixels = list(dataset.records("picture"))
    assert len(pixels) == 4
    assert pixels[0]["picture/pixels"].size == (16, 12)


def test_a_merge_goes_out(room, pictures, gate) -> None:
    one = room.add("records", pictures, unit="file", keep=("path", "folder")).version
    (pictures / "ann" / "1.jpg").unlink()
    two = room.add("b", pictures, unit="file", keep=("path", "folder")).version
    both = merge(room.catalogue, [one, two], "c")
    export(gate, room.store, both, room.folder / "out", RESEARCH)
    dataset = load(room.folder / "out" / "croissant.json")
    assert len(list(dataset.records("picture"))) == 7


def test_rows_alone_as_csv_and_the_description_alone(room, visits, gate) -> None:
    version = room.add("clinic", visits).version
    rows, card = room.folder / "rows", room.folder / "card"
    export(gate, room.store, version, rows, Wish(purpose="research", only="rows", form="csv"))
    assert sorted(path.name for path in rows.iterdir()) == ["receipt.json", "rows.csv"]
    assert pyarrow.csv.read_csv(rows / "rows.csv").num_rows == 4
    receipt = export(gate, room.store, version, card, Wish(purpose="research", only="croissant"))
    assert sorted(path.name for path in card.iterdir()) == ["croissant.json", "receipt.json"]
    assert len(receipt.outputs) == 1
    assert load(card / "croissant.json").metadata.name == "clinic"


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(), "declared purposes"),
        (Wish(purpose="care"), "does not allow the action 'export'"),
    ],
)
def test_the_gate_refuses(room, visits, gate, wish, message) -> None:
    version = room.add("clinic", visits).version
    with pytest.raises(PolicyRefused, match=message):
        export(gate, room.store, version, room.folder / "out", wish)
    assert not (room.folder / "out").exists()
    assert [row.kind for row in gate.ledger.entries()][1:] == ["refusal"]


def test_a_purpose_that_the_data_was_not_collected_for(room, visits, gate) -> None:
    section = room.policy.datasets["clinic"].model_copy(update={"purposes": ("care",)})
    room.policy = room.policy.model_copy(update={"datasets": {"clinic": section}})
    version = room.add("clinic", visits).version
    with pytest.raises(PolicyRefused, match="collected for: care"):
        export(gate, room.store, version, room.folder / "out", RESEARCH)


def test_nothing_goes_out_of_a_broken_store(room, visits, gate) -> None:
    version = room.add("clinic", visits).version
    name = version.items[0].name
    (room.store.root / name[:2] / name[2:]).write_bytes(b"x")
    with pytest.raises(IntegrityError):
        export(gate, room.store, version, room.folder / "out", RESEARCH)
    assert not (room.folder / "out").exists()
    assert [row.kind for row in gate.ledger.entries()][-2:] == ["reserve", "void"]


def test_a_folder_that_exists_is_left_alone(room, visits, gate) -> None:
    version = room.add("clinic", visits).version
    with pytest.raises(InvalidRequest, match="exists"):
        export(gate, room.store, version, room.folder, RESEARCH)
