from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.core.errors import IntegrityError, InvalidRequest
from sfumato.data.store import Place, PlainStore

PLACE = Place("traffic", "1", "flow.csv")


def test_what_was_put_comes_back_and_is_written_once(tmp_path: Path) -> None:
    store = PlainStore(tmp_path)
    name = store.put(b"rows", PLACE)
    assert store.put(b"rows", PLACE) == name
    assert store.get(name, PLACE) == b"rows"
    assert list(store.names()) == [name]
    store.check(name)


def test_changed_and_missing_bytes_are_found(tmp_path: Path) -> None:
    store = PlainStore(tmp_path)
    name = store.put(b"rows", PLACE)
    (tmp_path / name[:2] / name[2:]).write_bytes(b"other")
    for use in (lambda: store.get(name, PLACE), lambda: store.check(name)):
        with pytest.raises(IntegrityError, match="changed"):
            use()
    (tmp_path / name[:2] / name[2:]).unlink()
    with pytest.raises(IntegrityError, match="missing"):
        store.get(name, PLACE)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="64 hex"):
        PlainStore(tmp_path).get(name, PLACE)
