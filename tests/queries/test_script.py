"""Scripts are cut where a statement ends, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sqlglot", reason="needs sqlglot: pip install 'sfumato[queries]'")

from sfumato.queries.script import complete, statements

ONE = "SELECT COUNT(*) FROM flow"


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (ONE, (ONE,)),
        (f"{ONE};", (ONE,)),
        (f";;{ONE};;{ONE} ;\n", (ONE, ONE)),
        ("SELECT ';' ; SELECT \";\"", ("SELECT ';'", 'SELECT ";"')),
        (f"-- a; b\n{ONE}; /* c; */", (f"-- a; b\n{ONE}",)),
        ("", ()),
        (" ; ; -- nothing", ()),
        ("SELECT 'open;", ("SELECT 'open;",)),
    ],
)
def test_where_it_is_cut(script: str, found: tuple[str, ...]) -> None:
    assert statements(script) == found


def test_what_is_complete() -> None:
    assert complete(f"{ONE};")
    assert complete(f"{ONE}; -- so there")
    assert not complete(ONE)
    assert not complete("SELECT ';")
    assert not complete("")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_cut(script: str) -> None:
    found = statements(script)
    assert all(part.strip() for part in found) or not script.strip()
    assert complete(script) in (True, False)
