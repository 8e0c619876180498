from __future__ import annotations

import json
import threading

import pytest

from sfumato.core.errors import IntegrityError, InvalidRequest, PolicyRefused, UnknownName
from sfumato.data.catalogue import Catalogue
from sfumato.data.store import Place
from sfumato.data.version import Facts, Item, Version

FACTS = Facts(reader="csv", unit="who", population="patients", populations=("patients",))


def item(path: str = "rows.parquet", name: str = "0" * 64) -> Item:
    return Item(path, name, 3, Place("clinic", "1", path), 2)


def write(catalogue: Catalogue, dataset: str = "clinic", name: str = "0" * 64) -> Version:
    with catalogue.claim(dataset) as label:
        return catalogue.add(dataset, label, [item(name=name)], FACTS, [])


def test_a_version_reads_back_as_it_was_written(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    version = write(catalogue)
    assert catalogue.find("clinic@1") == version
    assert catalogue.by_hash(version.hash) == version
    assert catalogue.find(f"clinic@{version.hash[:8]}") == version
    assert not list(tmp_path.rglob("*.claim"))


def test_the_hash_is_over_what_it_holds_and_says_alone(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    one, same, other = write(catalogue), write(catalogue, "copy"), write(catalogue, name="1" * 64)
    assert one.hash == same.hash != other.hash
    assert [version.label for version in catalogue.versions("clinic")] == ["1", "2"]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["facts"].update(populations=["staff"], population="staff"),
        lambda data: data["items"][0].update(name="2" * 64),
        lambda data: data.update(parents=["3" * 64]),
        lambda data: data.pop("facts"),
        lambda data: data.update(format="x"),
    ],
)
def test_an_edited_version_is_refused(tmp_path, change) -> None:
    catalogue = Catalogue(tmp_path)
    write(catalogue)
    path = tmp_path / "clinic" / "1.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(IntegrityError, match=r"restore|Restore"):
        catalogue.find("clinic")


def test_a_version_that_was_moved_is_refused(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    write(catalogue)
    (tmp_path / "clinic" / "1.json").rename(tmp_path / "clinic" / "4.json")
    with pytest.raises(IntegrityError, match="moved"):
        catalogue.find("clinic")


def test_a_version_is_never_written_over(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    version = write(catalogue)
    with pytest.raises(InvalidRequest, match="never change"):
        catalogue.write(version)


def test_claimed_populations_must_be_those_of_the_lineage(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    false = Facts(reader="copy", unit="who", populations=("staff",))
    with pytest.raises(IntegrityError, match="lineage gives none"):
        catalogue.write(Version("clinic", "1", (), false))


def test_concurrent_adds_get_labels_of_their_own(tmp_path) -> None:
    catalogue, labels = Catalogue(tmp_path), []
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(4):
            labels.append(write(catalogue, name=f"{number * 4 + turn:064x}").label)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(labels)) == 32
    assert len(catalogue.versions("clinic")) == 32


def test_a_failed_add_leaves_no_label_and_no_folder(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    with pytest.raises(RuntimeError), catalogue.claim("clinic"):
        raise RuntimeError
    assert catalogue.names() == ()
    assert not (tmp_path / "clinic").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a" * 101, "na me", "a\nb"])
def test_a_name_is_no_path(tmp_path, name) -> None:
    with pytest.raises(InvalidRequest, match="letter or digit"):
        Catalogue(tmp_path).versions(name)


def test_unknown_names_are_suggested(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    write(catalogue)
    with pytest.raises(UnknownName, match="did you mean 'clinic'"):
        catalogue.find("clinik")
    with pytest.raises(UnknownName, match="version of clinic"):
        catalogue.find("clinic@9")
    with pytest.raises(InvalidRequest, match="after the @"):
        catalogue.find("clinic@")
    with pytest.raises(IntegrityError, match="missing"):
        catalogue.by_hash("f" * 64)


def test_a_retired_version_is_not_usable_and_stays(tmp_path) -> None:
    catalogue = Catalogue(tmp_path)
    first, second = write(catalogue), write(catalogue, name="1" * 64)
    with pytest.raises(InvalidRequest, match="for a reason"):
        catalogue.retire(second, "  ")
    catalogue.retire(second, "wrong file")
    assert catalogue.usable("clinic") == first
    assert catalogue.find("clinic") == second
    with pytest.raises(PolicyRefused, match="wrong file"):
        catalogue.usable("clinic@2")
    with pytest.raises(InvalidRequest, match="before"):
        catalogue.retire(second, "again")
    catalogue.retire(first, "all")
    with pytest.raises(PolicyRefused):
        catalogue.usable("clinic")
