"""What a source tries at the door: odd names, odd numbers, odd types, things hidden in picture files."""

from __future__ import annotations

import io
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

from sfumato.core.errors import InvalidRequest

SECRET = b"Ann Example of 12 Example Street"


def picture(path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 16, 3), 90, np.uint8)).save(path, **options)
    return path


def coco(folder: Path, image: dict, *annotations: dict, name: str = "p.png") -> Path:
    picture(folder / name)
    data = {"images": [{"id": 1, "file_name": name} | image], "annotations": list(annotations)}
    path = folder / "annotations.json"
    path.write_text(json.dumps(data | {"categories": [{"id": 1, "name": "car"}]}))
    return path


def test_a_picture_whose_name_is_no_text_enters(room) -> None:
    folder = room.folder / "photos"
    picture(folder / "x.png")
    (folder / "x.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    version = room.add("odd", folder, unit="file").version
    assert room.catalogue.find("odd").hash == version.hash
    assert len(version.items) == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_that_is_none_is_refused_at_once(room, number: float) -> None:
    path = coco(room.folder / "coco", {"score": number})
    with pytest.raises(InvalidRequest, match="does not read as JSON"):
        room.add("coco", path, unit="file", keep=("score",))


@pytest.mark.parametrize("category", [[1], {"a": 1}])
def test_a_category_that_is_no_id_is_refused(room, category: object) -> None:
    path = coco(room.folder / "coco", {}, {"image_id": 1, "category_id": category})
    with pytest.raises(InvalidRequest, match="names an image or category"):
        room.add("coco", path, unit="file")


def test_no_extra_of_coco_enters_unless_it_is_named(room) -> None:
    word = SECRET.decode()
    extra = {"license": word, "meta": {"who": [word]}, "coco_url": word, "date_captured": word}
    mark = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "attributes": {"who": word}}
    path = coco(room.folder / "coco", extra, mark, name=f"{word}.png")
    room.add("coco", path, unit="file", keep=("annotation.bbox", "annotation.category"))
    stored = room.stored()
    assert b'"annotation.bbox": [1, 2, 3, 4]' in stored
    assert SECRET not in stored


@pytest.mark.parametrize("column", [pa.array([b"\xff\xfe"]), pa.array([b"plain"], pa.large_binary())])
@pytest.mark.parametrize("name", ["who", "x"])
def test_bytes_where_text_is_needed_are_refused_by_name(room, column: pa.Array, name: str) -> None:
    path = room.folder / "x.parquet"
    table = pa.table({"who": ["a"], "x": ["b"]} | {name: column})
    pq.write_table(table, path)
    room.policy = room.policy.parse(
        '[project]\nname = "x"\n[datasets.t]\nkeep = ["x"]\nunit = "who"\n'
        '[datasets.t.generalise]\nx = "prefix 2"'
    )
    if column[0].as_py() == b"plain":
        room.add("t", path)
        return
    with pytest.raises(InvalidRequest, match=f"column '{name}'"):
        room.add("t", path)


def test_nothing_beside_the_columns_of_parquet_enters(room) -> None:
    path = room.folder / "x.parquet"
    metadata = {b"pandas": SECRET, b"note": SECRET}
    fields = [
        pa.field("who", pa.string(), metadata=metadata),
        pa.field("x", pa.dictionary(pa.int8(), pa.string()), metadata=metadata),
        pa.field("__index_level_0__", pa.string()),
        pa.field("x.y", pa.string()),
    ]
    words = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int8()), pa.array(["b", SECRET.decode()]))
    secrets = pa.array([SECRET.decode()] * 2)
    table = pa.table([pa.array(["a", "c"]), words, secrets, secrets], schema=pa.schema(fields, metadata))
    pq.write_table(table, path)
    room.add("t", path, unit="who", keep=("x",))
    stored = room.stored()
    assert SECRET not in stored
    assert SECRET in path.read_bytes()


def test_nothing_beside_the_pixels_of_pictures_enters(room) -> None:
    folder = room.folder / "photos"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SECRET.decode())
    text.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    picture(folder / "a" / "1.png", pnginfo=text, icc_profile=SECRET)
    jpeg = picture(folder / "a" / "2.jpg", comment=SECRET, icc_profile=SECRET, xmp=SECRET)
    jpeg.write_bytes(jpeg.read_bytes() + SECRET)  # after the end of the picture
    picture(folder / "a" / "3.gif", comment=SECRET)
    picture(folder / "a" / "4.webp", xmp=SECRET, icc_profile=SECRET)
    picture(folder / "a" / "5.tif", description=SECRET.decode(), icc_profile=SECRET)
    version = room.add("p", folder, unit="folder").version
    assert len(version.items) == 5
    stored = room.stored()
    assert SECRET not in stored
    assert zlib.compress(SECRET) not in stored
    for data in (room.store.get(item.name, item.home) for item in version.items):
        with Image.open(io.BytesIO(data)) as opened:
            assert not {
                key for key in opened.info if key in ("comment", "icc_profile", "xmp", "exif", "Comment")
            }


def test_a_number_beyond_all_numbers_keeps_out_its_picture_only(room) -> None:
    path = coco(room.folder / "coco", {"score": 1.5})
    data = json.loads(path.read_text())
    picture(path.parent / "q.png")
    data["images"].append({"id": 2, "file_name": "q.png", "score": 2.5})
    path.write_text(json.dumps(data).replace("2.5", "1e999"))
    added = room.add("coco", path, unit="file", keep=("score",))
    assert [name for name, _ in added.failures] == ["q.png"]
    assert "not finite" in added.failures[0][1]


def test_an_ending_that_names_no_format_is_not_kept(room) -> None:
    path = coco(room.folder / "coco", {})
    (path.parent / "p.png").rename(path.parent / "scan.ann-example")
    path.write_text(path.read_text().replace("p.png", "scan.ann-example"))
    room.add("coco", path, unit="file")
    assert b"ann-example" not in room.stored()


def test_one_name_spelled_in_two_ways_is_one_person(room) -> None:
    path = room.write("names.csv", "who,x\nJos\u00e9,1\nJose\u0301,2\n")
    assert room.add("names", path, unit="who", keep=("x",)).version.facts.subjects == 1
