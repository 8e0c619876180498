"""CSV: a value is what its own column holds, and nothing of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.core.errors import InvalidRequest
from sfumato.data.readers.csv import Csv


@pytest.mark.parametrize(
    "text",
    [
        'ssn,note\n111,"a\n222,b\n333,c',  # one quote too many, and the rest of the file is a note
        'ssn,note\n111,"a\n222,"b\n333,c\n',
        'id,note,ssn\n1,x,111\n2,y,"222\n3,z,333\n',
        'id,note,ssn\n1,"ab"cd,111\n',
    ],
)
def test_a_stray_quote_lets_no_dropped_column_into_a_kept_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match="quotation mark") as caught:
        Csv().open(path).load(["note"], {"note"})
    assert "222" not in str(caught.value)


def test_quotes_where_they_belong_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbf"id","no,te",x\r\n\r\n1,"a ""b"",\nc",\xc3\xa9\r\n2,5" pipe,\r\n')
    assert Csv().open(path).load(["no,te"], ()).to_pydict() == {"no,te": ['a "b",\nc', '5" pipe']}
