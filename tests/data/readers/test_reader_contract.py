"""What every reader of the catalogue must keep, over a source of its own kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sfumato.core.errors import InvalidRequest, SfumatoError
from sfumato.data.readers import CATALOGUE, PictureSource, Reader, TableSource, choose


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(path)


def make_csv(folder: Path) -> Path:
    path = folder / "t.csv"
    path.write_text("who,age,zip\nann,3,012\nbob,4,345\n")
    return path


def make_parquet(folder: Path) -> Path:
    path = folder / "t.parquet"
    pq.write_table(pa.table({"who": ["ann", "bob"], "age": [3, 4], "zip": ["012", "345"]}), path)
    return path


def make_folder(folder: Path) -> Path:
    for name in ("ann/1.png", "bob/2.jpg"):
        picture(folder / "photos" / name)
    return folder / "photos"


def make_coco(folder: Path) -> Path:
    for name in ("ann/1.png", "bob/2.jpg"):
        picture(folder / "images" / name)
    data = {
        "images": [
            {"id": 1, "file_name": "ann/1.png", "width": 10, "height": 8, "patient": "ann"},
            {"id": 2, "file_name": "bob/2.jpg", "width": 10, "height": 8, "patient": "bob"},
        ],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "note": "Ann"}],
        "categories": [{"id": 3, "name": "scar"}],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(data))
    return path


def make_yolo(folder: Path) -> Path:
    for split, name in (("train", "ann/1.png"), ("val", "bob/2.jpg")):
        picture(folder / "images" / split / name)
    labels = folder / "labels" / "train" / "ann" / "1.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("0 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.9 0.1 0.9 0.9\n")
    path = folder / "data.yaml"
    path.write_text("path: .\ntrain: images/train\nval: images/val\nnames:\n  0: scar\n")
    return path


SOURCES = {
    "csv": make_csv,
    "parquet": make_parquet,
    "image-folder": make_folder,
    "coco": make_coco,
    "yolo": make_yolo,
}


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_every_reader_has_a_source_and_is_light(name: str) -> None:
    plugin = CATALOGUE.load(name)
    assert plugin.summary
    assert name in SOURCES, "add a source to this file"
    code = (
        f"import sys, {plugin.module.__name__}; "
        "print([m for m in ('pyarrow', 'yaml', 'PIL', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_every_reader_knows_its_own_kind_alone(name: str, tmp_path: Path) -> None:
    path = SOURCES[name](tmp_path)
    assert choose(path)[0] == name
    assert CATALOGUE.load(name).module.reads(path)
    others = [other for other in CATALOGUE.names if other != name]
    assert not any(CATALOGUE.load(other).module.reads(path) for other in others)


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_every_source_reads_and_reads_again(name: str, tmp_path: Path) -> None:
    path = SOURCES[name](tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    source = CATALOGUE.build(name).open(path)
    assert len(set(source.fields)) == len(source.fields)
    if isinstance(source, TableSource):
        table = source.load(["zip", "who"], {"who", "zip"})
        assert table.to_pydict() == {"zip": ["012", "345"], "who": ["ann", "bob"]}
        assert table.equals(source.load(["zip", "who"], {"who", "zip"}))
    else:
        assert isinstance(source, PictureSource)
        found = list(source.pictures())
        assert [one.file.suffix for one in found] == [".png", ".jpg"]
        assert found == list(source.pictures())
        for one in found:
            assert one.fields["path"] == one.path
            named = set(one.fields) | {key for mark in one.annotations for key in mark}
            assert named <= set(source.fields)
            assert all(key.startswith("annotation.") for mark in one.annotations for key in mark)
    assert {file: file.read_bytes() for file in before} == before


def read_all(reader: Reader, path: Path) -> None:
    source = reader.open(path)
    if isinstance(source, TableSource):
        source.load(list(source.fields), ())
    else:
        list(source.pictures())


@pytest.mark.parametrize("name", CATALOGUE.names)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b"[1, 2", b"{}", b"a: [b", b"PAR1"])
def test_garbage_is_refused_in_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(content)
    with pytest.raises(SfumatoError):
        read_all(CATALOGUE.build(name), path)


def test_what_no_reader_knows(tmp_path: Path) -> None:
    (tmp_path / "x.xlsx").write_bytes(b"x")
    with pytest.raises(InvalidRequest, match="see --reader"):
        choose(tmp_path / "x.xlsx")
    with pytest.raises(InvalidRequest, match="does not exist"):
        choose(tmp_path / "absent")


# CSV


def csv(tmp_path: Path, text: str, columns: list[str], as_text: tuple[str, ...] = ()) -> pa.Table:
    (tmp_path / "t.csv").write_text(text)
    return CATALOGUE.build("csv").open(tmp_path / "t.csv").load(columns, as_text)


def test_types_are_told_and_leading_zeros_kept(tmp_path: Path) -> None:
    text = "id,zip,n,x,day,gap\n7,01,1,1.5,2024-01-02,\n8,22,-2,2,2024-01-03,NA\n"
    table = csv(tmp_path, text, ["id", "zip", "n", "x", "day", "gap"], ("id",))
    assert [str(field.type) for field in table.schema] == [
        "string", "string", "int64", "double", "string", "string",
    ]  # fmt: skip
    assert table["zip"].to_pylist() == ["01", "22"]
    assert table["gap"].to_pylist() == [None, "NA"]


def test_quotes_and_lines_inside_values(tmp_path: Path) -> None:
    table = csv(tmp_path, '\ufeffwho,said\nann,"one, two\nthree"\n', ["said"])
    assert table["said"].to_pylist() == ["one, two\nthree"]


@pytest.mark.parametrize("text", ["a,a\n1,2\n", "a,\n1,2\n", "a,b\n1,2\nsecret\n", "a,b\n1,2,secret\n"])
def test_odd_tables_are_refused_without_a_value(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        csv(tmp_path, text, ["a"])
    assert "secret" not in str(error.value)


def test_nested_parquet_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [[1], [2]]}), tmp_path / "t.parquet")
    with pytest.raises(InvalidRequest, match="flatten"):
        CATALOGUE.build("parquet").open(tmp_path / "t.parquet").load(["a"], ())


def test_words_stored_once_are_read_as_words(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array(["x", "y", "x"]).dictionary_encode()}), tmp_path / "t.parquet")
    table = CATALOGUE.build("parquet").open(tmp_path / "t.parquet").load(["a"], ())
    assert str(table.schema.field("a").type) == "string"


# COCO and YOLO


def edit_coco(folder: Path, change) -> Path:
    path = make_coco(folder)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["images"][0].update(file_name="../annotations.json"),
        lambda data: data["images"][1].update(file_name="/etc/passwd"),
        lambda data: data["images"][1].update(file_name="absent.png"),
        lambda data: data["images"][1].update(id=1),
        lambda data: data["annotations"][0].update(image_id=9),
        lambda data: data["annotations"][0].update(category_id=9),
        lambda data: data.update(images=[]),
        lambda data: data.update(images={}),
        lambda data: data["images"][0].pop("file_name"),
    ],
)
def test_coco_that_leads_nowhere_is_refused(tmp_path: Path, change) -> None:
    with pytest.raises(InvalidRequest):
        CATALOGUE.build("coco").open(edit_coco(tmp_path, change))


def test_coco_fields(tmp_path: Path) -> None:
    source = CATALOGUE.build("coco").open(make_coco(tmp_path))
    first, second = source.pictures()
    assert first.fields == {"path": "ann/1.png", "width": 10, "height": 8, "patient": "ann"}
    assert first.annotations == (
        {"annotation.bbox": [1, 2, 3, 4], "annotation.note": "Ann", "annotation.category": "scar"},
    )
    assert second.annotations == ()


def test_yolo_fields(tmp_path: Path) -> None:
    first, second = CATALOGUE.build("yolo").open(make_yolo(tmp_path)).pictures()
    assert first.fields == {"path": "images/train/ann/1.png", "split": "train"}
    assert first.annotations == (
        {"annotation.category": "scar", "annotation.box": [0.5, 0.5, 0.2, 0.2]},
        {"annotation.category": "scar", "annotation.points": [0.1, 0.1, 0.9, 0.1, 0.9, 0.9]},
    )
    assert second.annotations == ()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.yaml", "train: ../..\nnames: [a]\n"),
        ("data.yaml", "train: /etc\nnames: [a]\n"),
        ("data.yaml", "train: absent\nnames: [a]\n"),
        ("data.yaml", "train: images/train\nnames: 3\n"),
        ("data.yaml", "train: images/train\nval: images\nnames: [a]\n"),
        ("data.yaml", "names: [a]\n"),
        ("data.yaml", "!!python/object/apply:os.system ['true']\n"),
        ("labels/train/ann/1.txt", "7 0.5 0.5 0.2 0.2\n"),
        ("labels/train/ann/1.txt", "0 0.5 0.5\n"),
        ("labels/train/ann/1.txt", "0 0.5 nan 0.2 0.2\n"),
        ("labels/train/ann/1.txt", "Ann 0.5 0.5 0.2 0.2\n"),
    ],
)
def test_yolo_that_does_not_read_is_refused(tmp_path: Path, file: str, text: str) -> None:
    path = make_yolo(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(InvalidRequest):
        CATALOGUE.build("yolo").open(path)


def test_a_yolo_list_file_and_the_exporters_path(tmp_path: Path) -> None:
    path = make_yolo(tmp_path)
    (tmp_path / "list.txt").write_text("./images/train/ann/1.png\nimages/val/bob/2.jpg\n")
    path.write_text("train: list.txt\nnames: [scar]\n")
    assert len(list(CATALOGUE.build("yolo").open(path).pictures())) == 2
    path.write_text("train: ../images/train\nnames: [scar]\n")
    assert len(list(CATALOGUE.build("yolo").open(path).pictures())) == 1


def test_links_out_of_a_folder_are_left_out(tmp_path: Path) -> None:
    photos = make_folder(tmp_path)
    picture(tmp_path / "elsewhere.png")
    (photos / "ann" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    (photos / "notes.txt").write_text("x")
    source = CATALOGUE.build("image-folder").open(photos)
    assert dict(source.left_out) == {
        "ann/link.png": "a link out of the folder",
        "notes.txt": "not a picture",
    }
    assert len(list(source.pictures())) == 2


def test_yolo_reads_no_folder_that_nobody_named(tmp_path: Path) -> None:
    make_yolo(tmp_path / "elsewhere")
    path = tmp_path / "asked" / "data.yaml"
    path.parent.mkdir()
    for way in ("../elsewhere", str(tmp_path / "elsewhere")):
        path.write_text(f"path: {way}\ntrain: images/train\nnames:\n  0: scar\n")
        with pytest.raises(InvalidRequest, match="leads out of the folder"):
            CATALOGUE.build("yolo").open(path)
