"""Minimisation at the door: what is not kept is nowhere."""

from __future__ import annotations

import datetime as dt
import io
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sfumato.core.errors import BatchFailed, InvalidRequest, PolicyRefused, UnknownName
from sfumato.data.add import look
from sfumato.data.check import verify
from sfumato.data.contents import pictures as stored_pictures
from sfumato.data.contents import table, without
from sfumato.data.door import Request
from sfumato.data.store import Place, PlainStore
from sfumato.data.unit import UnitRule


def test_only_what_the_policy_keeps_reaches_the_store(room, visits) -> None:
    version = room.add("clinic", visits).version
    rows = table(room.store, version)
    assert rows.column_names == ["patient", "born", "postcode", "age", "diagnosis"]
    assert rows["postcode"].to_pylist() == ["01", "01", "01", "99"]
    assert rows["age"].to_pylist() == ["40-49", "40-49", "40-49", "70-79"]
    assert rows["born"].to_pylist() == ["1984", "1984", "1984", "1950"]
    who = rows["patient"].to_pylist()
    assert who[0] == who[2] == room.catalogue.people.subject("007", "patients")
    assert len(set(who)) == 3
    assert version.facts.subjects == 3
    assert version.facts.populations == ("patients",)
    assert version.facts.tested["k"] == 1
    assert [name for name, _ in version.facts.dropped] == ["patient", "name"]
    for secret in (b"Example", b"Ann", b"1984-05-17", b"01234", b"007"):  # a hash may hold such digits
        assert not re.search(rb"(?<![0-9a-f])" + secret + rb"(?![0-9a-f])", room.stored())


def test_the_byte_search_sees_what_is_kept(room, visits) -> None:
    room.add("open", visits, unit="patient", keep=("name",))
    assert b"Example" in room.stored()


def test_a_look_writes_nothing(room, visits) -> None:
    seen = look(room.policy, Request(dataset="clinic", path=visits))
    assert (seen.rows, seen.subjects, seen.tested["k"]) == (4, 3, 1)
    assert not room.catalogue.root.exists()
    assert not room.store.root.exists()


@pytest.mark.parametrize("row", [",x,1984-01-01,1,1,flu", "  ,x,1984-01-01,1,1,flu"])
def test_rows_about_nobody_are_refused(room, visits, row) -> None:
    visits.write_text(visits.read_text() + row + "\n")
    with pytest.raises(InvalidRequest, match=r"1 of 5 rows .* row 5"):
        room.add("clinic", visits)
    assert room.catalogue.names() == ()
    assert not room.store.root.exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"unit": "name"}, PolicyRefused, "datasets.clinic.unit"),
        ({"population": "staff"}, PolicyRefused, "datasets.clinic.population"),
        ({"keep": ("name",)}, PolicyRefused, "datasets.clinic.keep"),
    ],
)
def test_a_request_cannot_loosen_the_policy(room, visits, options, error, message) -> None:
    with pytest.raises(error, match=message):
        room.add("clinic", visits, **options)


def test_a_request_may_keep_less(room, visits) -> None:
    version = room.add("clinic", visits, keep=("age",)).version
    assert version.facts.kept == ("age",)
    assert version.facts.tested["quasi_identifiers"] == ["age"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"keep": ("age",)}, InvalidRequest, "--unit"),
        ({"unit": "patient"}, InvalidRequest, "nothing would be left"),
        ({"unit": "patient", "keep": ("patient",)}, InvalidRequest, "nothing would be left"),
        ({"unit": "patent", "keep": ("age",)}, UnknownName, "did you mean 'patient'"),
        ({"unit": "patient", "keep": ("agee",)}, UnknownName, "did you mean 'age'"),
        ({"unit": "patient", "keep": ("age",), "population": "patient"}, UnknownName, "sfumato.toml"),
        ({"unit": "patient", "keep": ("age",), "reader": "cvs"}, UnknownName, "did you mean 'csv'"),
    ],
)
def test_what_cannot_be_added_says_why(room, visits, options, error, message) -> None:
    with pytest.raises(error, match=message):
        room.add("other", visits, **options)


def test_an_empty_table_is_refused(room) -> None:
    with pytest.raises(InvalidRequest, match="no rows"):
        room.add("clinic", room.write("v.csv", "patient,born,postcode,age,diagnosis\n"))


def test_an_add_that_breaks_off_leaves_no_version(room, pictures) -> None:
    class Full(PlainStore):
        puts = 0

        def put(self, data: bytes, place: Place) -> str:
            self.puts += 1
            if self.puts == 3:
                raise OSError("disk full")
            return super().put(data, place)

    whole, room.store = room.store, Full(room.store.root)
    with pytest.raises(OSError, match="disk full"):
        room.add("gate", pictures, unit="folder")
    assert room.catalogue.names() == ()
    room.store = whole
    assert room.add("gate", pictures, unit="folder").version.label == "1"
    assert verify(room.catalogue, room.store).loose == ()


def test_a_label_that_a_kill_left_claimed_is_skipped(room, visits) -> None:
    (room.catalogue.root / "clinic").mkdir(parents=True)
    (room.catalogue.root / "clinic" / "1.claim").touch()
    assert room.add("clinic", visits).version.label == "2"
    assert room.catalogue.names() == ("clinic",)


def test_odd_columns_of_parquet(room) -> None:
    day = dt.datetime(2024, 3, 5, 7, 8, 9)
    data = pa.table(
        {
            "patient": [1, 2],
            "born": pa.array([day, None], pa.timestamp("ns")),
            "seen": pa.array([day, day], pa.timestamp("ns", "Europe/Berlin")),
            "postcode": pa.array([10115, 20095]),
            "age": pa.array([40.5, float("nan")]),
            "diagnosis": pa.nulls(2),
        },
        metadata={"author": "Ann Example"},
    )
    pq.write_table(data, room.folder / "v.parquet")
    version = room.add("clinic", room.folder / "v.parquet").version
    rows = table(room.store, version)
    assert rows.select(["born", "postcode", "age"]).to_pydict() == {
        "born": ["2024", None],
        "postcode": ["10", "20"],
        "age": ["40-49", None],
    }
    assert b"Ann" not in room.stored()
    assert version.facts.tested["k"] == 1


def test_the_same_again_is_no_new_version_and_a_change_is(room, visits) -> None:
    first = room.add("clinic", visits)
    assert not room.add("clinic", visits).new
    visits.write_text(visits.read_text() + "010,Di,2001-01-01,10115,23,flu\n")
    second = room.add("clinic", visits)
    assert second.new
    assert second.version.parents == (first.version.hash,)
    assert room.add("clinic", visits, keep=("age",)).new


def test_the_same_bytes_bring_no_second_budget(room, visits) -> None:
    room.add("clinic", visits)
    copy = room.write("copy.csv", visits.read_text())
    for options in ({}, {"population": "staff"}):
        with pytest.raises(PolicyRefused, match="A copy stays theirs"):
            room.add("renamed", copy, unit="patient", keep=("age",), **options)
    assert room.add("renamed", copy, unit="patient", keep=("age",), population="patients").new


def test_one_person_has_one_pseudonym_in_a_population_and_another_outside(room, visits) -> None:
    ours = table(room.store, room.add("clinic", visits).version)["patient"][0].as_py()
    other = room.write("other.csv", "patient,x\n007,1\n")
    theirs = room.add("ward", other, unit="patient", keep=("x",), population="patients").version
    free = room.add("cars", room.write("cars.csv", "car,x\n007,2\n"), unit="car", keep=("x",)).version
    assert table(room.store, theirs)["patient"][0].as_py() == ours
    assert table(room.store, free)["car"][0].as_py() != ours


def test_rows_by_subject_lie_apart_and_read_back_together(room, visits) -> None:
    section = room.policy.datasets["clinic"].model_copy(update={"partition": "subject"})
    room.policy = room.policy.model_copy(update={"datasets": {"clinic": section}})
    version = room.add("clinic", visits).version
    assert sorted(item.rows for item in version.items) == [1, 1, 2]
    assert len({item.subject for item in version.items}) == 3
    whole = table(room.store, version)
    for item in version.items:
        assert item.path == f"rows/{item.subject}.parquet"
    assert sorted(whole["diagnosis"].to_pylist()) == ["cold", "cold", "flu", "flu"]


@pytest.mark.parametrize("partition", ["whole", "subject"])
def test_a_version_without_somebody(room, visits, partition) -> None:
    section = room.policy.datasets["clinic"].model_copy(update={"partition": partition})
    room.policy = room.policy.model_copy(update={"datasets": {"clinic": section}})
    version = room.add("clinic", visits).version
    ann = room.catalogue.people.subject("007", "patients")
    left = without(room.catalogue, room.store, version, [ann], why="withdrawn")
    assert left.facts.reader == "withdrawn"
    assert left.parents == (version.hash,)
    assert left.facts.rows == 2
    assert ann not in table(room.store, left)["patient"].to_pylist()
    assert ann in table(room.store, version)["patient"].to_pylist()
    everyone = table(room.store, left)["patient"].to_pylist()
    empty = table(room.store, without(room.catalogue, room.store, left, everyone))
    assert (len(empty), empty.schema) == (0, table(room.store, left).schema)


# Pictures


def test_pictures_enter_as_pixels_under_pseudonyms(room, pictures) -> None:
    added = room.add("gate", pictures, unit="folder")
    version = added.version
    assert dict(added.look.left_out) == {"notes.txt": "not a picture"}
    assert len(version.items) == 4
    assert version.facts.subjects == 2
    assert not any("ann" in item.path for item in version.items)
    assert b"Example" not in room.stored()
    for one in stored_pictures(room.store, version):
        image = Image.open(io.BytesIO(one.data))
        assert image.size == (16, 12)
        assert not image.getexif()
        assert one.record == {}
    assert room.add("gate", pictures, unit="folder").new is False


def test_paths_and_fields_are_kept_where_the_list_says_so(room, pictures) -> None:
    images = [
        {"id": index, "file_name": name, "ward": 7, "case": name[:3]}
        for index, name in enumerate(("ann/1.jpg", "bob/deep/3.png"))
    ]
    path = pictures / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    version = room.add("gate", path, unit="case", keep=("path", "ward")).version
    assert {item.path for item in version.items if item.path.startswith("pictures/")} == {
        "pictures/ann/1.jpg",
        "pictures/bob/deep/3.png",
    }


@pytest.mark.parametrize("unit", ["folder", "file", "name:([0-9])"])
def test_a_path_that_holds_the_unit_is_not_kept(room, pictures, unit) -> None:
    with pytest.raises(InvalidRequest, match="Take 'path' off the keep list"):
        room.add("gate", pictures, unit=unit, keep=("path",))
    assert not room.store.root.exists()


def test_names_of_dropped_columns_that_may_be_personal_are_counted(room) -> None:
    path = room.write("wide.csv", "who,x,visit_1,Ann Example 1984,jo@example.org\na,1,2,3,4\n")
    version = room.add("wide", path, unit="who", keep=("x",)).version
    assert [name for name, _ in version.facts.dropped] == [
        "who", "visit_1", "(2 fields, whose names are not kept)",
    ]  # fmt: skip
    assert b"Example" not in room.stored()
    assert b"jo@" not in room.stored()
    assert not room.add("wide", path, unit="who", keep=("x",)).new


def test_of_more_than_a_hundred_dropped_columns_no_name_is_kept(room) -> None:
    names = [f"p{number}" for number in range(101)]
    path = room.write("wide.csv", ",".join(["who", "x", *names]) + "\n" + ",".join("1" * 103) + "\n")
    version = room.add("wide", path, unit="who", keep=("x",)).version
    assert [name for name, _ in version.facts.dropped] == [
        "(1 fields, whose names are not kept)", "(101 fields, whose names are not kept)",
    ]  # fmt: skip


def test_annotations_are_an_allow_list(room, pictures) -> None:
    data = {
        "images": [
            {"id": 1, "file_name": "ann/1.jpg", "width": 16, "height": 12,
             "date_captured": "2024-03-05", "by": "Eve"}
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "note": "Ann's scar"}
        ],
        "categories": [{"id": 1, "name": "scar"}],
    }  # fmt: skip
    path = pictures / "annotations.json"
    path.write_text(json.dumps(data))
    keep = ("date_captured", "annotation.bbox", "annotation.category")
    version = room.add("marked", path, unit="file", keep=keep).version
    (one,) = stored_pictures(room.store, version)
    assert one.record == {
        "fields": {"date_captured": "2024-03-05"},
        "annotations": [{"annotation.bbox": [1, 2, 3, 4], "annotation.category": "scar"}],
    }
    assert b"Eve" not in room.stored()
    assert b"Ann" not in room.stored()


def test_annotations_for_another_size_do_not_enter(room, pictures) -> None:
    data = {
        "images": [
            {"id": i, "file_name": f"ann/{i}.jpg", "width": 16, "height": 12 if i == 1 else 99}
            for i in (1, 2)
        ],
        "annotations": [{"image_id": i, "bbox": [0, 0, 1, 1]} for i in (1, 2)],
    }
    path = pictures / "annotations.json"
    path.write_text(json.dumps(data))
    added = room.add("marked", path, unit="file")
    assert [name for name, _ in added.failures] == ["ann/2.jpg"]
    assert len(added.version.items) == 1


def test_a_bad_picture_is_listed_and_the_others_enter(room, pictures) -> None:
    (pictures / "ann" / "broken.jpg").write_bytes(b"\xff\xd8\xff garbage")
    added = room.add("gate", pictures, unit="folder")
    assert [name for name, _ in added.failures] == ["ann/broken.jpg"]
    assert len(added.version.items) == 4
    with pytest.raises(BatchFailed, match="1 of 5 pictures"):
        added.check()


def test_nothing_but_bad_pictures_is_no_version(room) -> None:
    room.write("photos/ann/1.jpg", "garbage")
    with pytest.raises(BatchFailed, match="no picture could enter"):
        room.add("gate", room.folder / "photos", unit="folder")
    assert room.catalogue.names() == ()


def test_pictures_about_nobody_are_refused(room, pictures) -> None:
    (pictures / "loose.jpg").write_bytes((pictures / "ann" / "1.jpg").read_bytes())
    with pytest.raises(InvalidRequest, match=r"1 of 5 pictures .* loose.jpg"):
        room.add("gate", pictures, unit="folder")
    assert not room.store.root.exists()


@pytest.mark.parametrize(
    ("rule", "path", "who"),
    [
        ("file", "a/b.jpg", "a/b.jpg"),
        ("folder", "a/b/c.jpg", "a"),
        ("folder", "c.jpg", None),
        ("name:([a-z]+)_", "x/ann_1.jpg", "ann"),
        ("name:([a-z]+)_", "x/7_1.jpg", None),
        ("name:([a-z]*)_", "x/_1.jpg", None),
        ("patient", "x.jpg", "7"),
        ("ward", "x.jpg", None),
        ("list", "x.jpg", None),
    ],
)
def test_unit_rules(rule, path, who) -> None:
    assert UnitRule(rule).of(path, {"patient": 7, "ward": " ", "list": [1]}) == who


@pytest.mark.parametrize("rule", ["", "name:(", "name:abc"])
def test_a_bad_unit_rule_is_refused(rule) -> None:
    with pytest.raises(InvalidRequest):
        UnitRule(rule)
