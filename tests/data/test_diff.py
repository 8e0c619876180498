from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import IntegrityError, UnknownName
from sfumato.data.diff import _rows, diff


def test_rows_by_the_unit(room, visits) -> None:
    old = room.add("clinic", visits).version
    text = visits.read_text().replace("99999,74,flu", "99999,74,cold").replace("008,Bob", "018,Bob")
    visits.write_text(text + "007,Ann Example,1984-05-17,01234,40,flu\n")
    new = room.add("clinic", visits).version
    result = diff(room.store, old, new)
    names = room.catalogue.people
    assert (result.rows.added, result.rows.removed, result.rows.changed) == (2, 1, 1)
    assert result.rows.which_removed == (names.subject("008", "patients"),)
    assert result.rows.which_changed == (names.subject("009", "patients"),)
    assert set(result.rows.which_added) == {
        names.subject("007", "patients"),
        names.subject("018", "patients"),
    }
    assert not result.empty
    assert diff(room.store, new, new).empty


def test_columns_that_come_and_go(room, visits) -> None:
    old = room.add("clinic", visits, keep=("age", "born")).version
    new = room.add("clinic", visits, keep=("age", "diagnosis")).version
    result = diff(room.store, old, new)
    assert (result.columns_added, result.columns_removed) == (("diagnosis",), ("born",))
    assert not result.rows.changed
    with pytest.raises(UnknownName, match="key column"):
        diff(room.store, old, new, key="born")
    assert diff(room.store, old, new, key="age").key == "age"


def test_pictures_by_path(room, pictures) -> None:
    def added():
        found = sorted(pictures.glob("*/*.jpg"))
        names = [path.relative_to(pictures).as_posix() for path in found]
        images = [{"id": i, "file_name": name, "case": name[:3]} for i, name in enumerate(names)]
        (pictures / "coco.json").write_text(
            json.dumps({"images": images, "annotations": [], "categories": []})
        )
        return room.add("gate", pictures / "coco.json", unit="case", keep=("path",)).version

    old = added()
    (pictures / "ann" / "1.jpg").write_bytes((pictures / "bob" / "1.jpg").read_bytes())
    (pictures / "ann" / "2.jpg").rename(pictures / "ann" / "9.jpg")
    new = added()
    result = diff(room.store, old, new)
    assert result.items.which_added == ("pictures/ann/9.jpg",)
    assert result.items.which_removed == ("pictures/ann/2.jpg",)
    assert result.items.which_changed == ("pictures/ann/1.jpg",)


def test_pictures_against_a_table(room, pictures, visits) -> None:
    old = room.add("gate", pictures, unit="folder").version
    new = room.add("clinic", visits).version
    result = diff(room.store, old, new)
    assert (result.items.removed, result.rows.added) == (4, 4)
    back = diff(room.store, new, old, key="patient")
    assert (back.items.added, back.rows.removed) == (4, 4)


def test_a_changed_store_is_found(room, visits) -> None:
    old = room.add("clinic", visits).version
    item = old.items[0]
    (room.store.root / item.name[:2] / item.name[2:]).write_bytes(b"x")
    with pytest.raises(IntegrityError):
        diff(room.store, old, old)


row = st.tuples(st.sampled_from("abc"), st.sampled_from((0, 1, None)))


@settings(max_examples=150, deadline=None)
@given(st.lists(row, max_size=12), st.lists(row, max_size=12))
def test_rows_agree_with_counting_by_hand(before, after) -> None:
    schema = pa.schema([("key", pa.string()), ("value", pa.int64())])
    tables = [
        pa.Table.from_pylist([{"key": k, "value": v} for k, v in rows], schema=schema)
        for rows in (before, after)
    ]
    result = _rows(*tables, "key")
    lost, gained = Counter(before) - Counter(after), Counter(after) - Counter(before)
    added, removed, changed = Counter(), Counter(), Counter()
    for key in "abc":
        less = sum(count for (k, _), count in lost.items() if k == key)
        more = sum(count for (k, _), count in gained.items() if k == key)
        changed[key], added[key], removed[key] = min(less, more), max(more - less, 0), max(less - more, 0)
    assert (result.added, result.removed, result.changed) == (
        added.total(),
        removed.total(),
        changed.total(),
    )
    for counts, which in (
        (added, result.which_added),
        (removed, result.which_removed),
        (changed, result.which_changed),
    ):
        assert which == tuple(key for key in "abc" if counts[key])
