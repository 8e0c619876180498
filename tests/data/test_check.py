from __future__ import annotations

import json

import pytest

from sfumato.core.errors import IntegrityError, UnknownName
from sfumato.data.check import verify
from sfumato.data.lineage import copy
from sfumato.data.store import Place


def test_what_is_whole_verifies(room, visits, pictures) -> None:
    version = room.add("clinic", visits).version
    copy(room.catalogue, version, "other")
    room.add("gate", pictures, unit="folder")
    result = verify(room.catalogue, room.store)
    assert (result.versions, result.items, result.loose) == (3, 6, ())
    loose = room.store.put(b"left by a stopped add", Place("x", "1", "x"))
    assert verify(room.catalogue, room.store).loose == (loose,)
    assert verify(room.catalogue, room.store, ["clinic"]).loose == ()
    with pytest.raises(UnknownName):
        verify(room.catalogue, room.store, ["clinik"])


def test_everything_that_is_broken_is_named(room, visits, pictures) -> None:
    table = room.add("clinic", visits).version
    gate = room.add("gate", pictures, unit="folder").version
    paths = [room.store.root / name[:2] / name[2:] for name in (table.items[0].name, gate.items[0].name)]
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    paths[1].unlink()
    with pytest.raises(IntegrityError, match="2 things do not verify") as error:
        verify(room.catalogue, room.store)
    assert "clinic@1 rows.parquet" in str(error.value)
    assert gate.items[0].path in str(error.value)


@pytest.mark.parametrize("whose", ["parent", "child"])
def test_a_broken_lineage_is_found(room, visits, whose) -> None:
    parent = room.add("clinic", visits).version
    copy(room.catalogue, parent, "other")
    path = room.catalogue.root / ("clinic" if whose == "parent" else "other") / "1.json"
    data = json.loads(path.read_text())
    data["facts"]["populations"] = []
    path.write_text(json.dumps(data))
    with pytest.raises(IntegrityError, match="do not verify"):
        verify(room.catalogue, room.store)
