"""Several questions in one text."""

from __future__ import annotations


def statements(script: str) -> tuple[str, ...]:
    """Return the statements of a script, without the semicolons between them.

    >>> statements("SELECT COUNT(*) FROM flow; SELECT COUNT(*) FROM flow WHERE junction = 'a;b';")
    ('SELECT COUNT(*) FROM flow', "SELECT COUNT(*) FROM flow WHERE junction = 'a;b'")
    """
    import sqlglot
    from sqlglot.errors import SqlglotError
    from sqlglot.tokens import TokenType

    try:
        tokens = sqlglot.tokenize(script, dialect="duckdb")
    except (SqlglotError, ValueError, IndexError, RecursionError):
        return (script.strip(),)  # it is no SQL: whoever reads it says where
    ends = [token.start for token in tokens if token.token_type == TokenType.SEMICOLON]
    cuts = [0, *(end + 1 for end in ends)]
    parts = [script[at:end] for at, end in zip(cuts, [*ends, len(script)], strict=True)]
    # A part is empty where no token lies in it: nothing but space and comments.
    spans = zip(cuts, [*ends, len(script)], strict=True)
    filled = [
        any(at <= token.start < end and token.token_type != TokenType.SEMICOLON for token in tokens)
        for at, end in spans
    ]
    return tuple(part.strip() for part, some in zip(parts, filled, strict=True) if some)


def complete(script: str) -> bool:
    """Whether a script ends with a semicolon that ends a statement.

    >>> complete("SELECT 'a;"), complete("SELECT 1;")
    (False, True)
    """
    import sqlglot
    from sqlglot.errors import SqlglotError
    from sqlglot.tokens import TokenType

    try:
        tokens = sqlglot.tokenize(script, dialect="duckdb")
    except (SqlglotError, ValueError, IndexError, RecursionError):
        return False
    return bool(tokens) and tokens[-1].token_type == TokenType.SEMICOLON
