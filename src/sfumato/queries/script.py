"""Several questions in one text."""

from __future__ import annotations

from typing import Any


def statements(script: str) -> tuple[str, ...]:
    """Return the statements of a script, without the semicolons between them.

    >>> statements("SELECT COUNT(*) FROM flow; SELECT COUNT(*) FROM flow WHERE junction = 'a;b';")
    ('SELECT COUNT(*) FROM flow', "SELECT COUNT(*) FROM flow WHERE junction = 'a;b'")
    """
    tokens = _tokens(script)
    if tokens is None:
        return (script.strip(),)  # no SQL: whoever reads it says where
    found, start, filled = [], 0, False
    for token in tokens:
        if token.token_type.name != "SEMICOLON":
            filled = True
            continue
        if filled:
            found.append(script[start : token.start].strip())
        start, filled = token.start + 1, False
    if filled:
        found.append(script[start:].strip())
    return tuple(found)


def complete(script: str) -> bool:
    """Whether a script ends with a semicolon that ends a statement.

    >>> complete("SELECT 'a;"), complete("SELECT 1;")
    (False, True)
    """
    tokens = _tokens(script)
    return bool(tokens and tokens[-1].token_type.name == "SEMICOLON")


def _tokens(script: str) -> list[Any] | None:
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        return list(sqlglot.tokenize(script, dialect="duckdb"))
    except (SqlglotError, ValueError, IndexError, RecursionError):
        return None
