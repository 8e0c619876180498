"""The words of the language: what is understood, what is not, and what to write instead."""

from __future__ import annotations

from sfumato.queries.model import DatePart, DateUnit

#: How any privacy unit may be called where no column has that name.
UNIT = "privacy_unit"

#: Parts of a date as they are written: EXTRACT(part FROM x), DATE_PART('part', x), and as functions.
PARTS: dict[str, DatePart] = {
    "YEAR": "year",
    "QUARTER": "quarter",
    "MONTH": "month",
    "WEEK": "week",
    "WEEKOFYEAR": "week",
    "DAY": "day",
    "DAYOFMONTH": "day",
    "HOUR": "hour",
    "MINUTE": "minute",
    "ISODOW": "weekday",
    "DAYOFYEAR": "yearday",
    "DOY": "yearday",
}

#: The weekday that counts from Sunday, which is 0 (as DuckDB has it).
SUNDAY_FIRST = frozenset(("DOW", "DAYOFWEEK", "WEEKDAY"))

UNITS: dict[str, DateUnit] = {
    name + plural: name
    for name in ("year", "quarter", "month", "week", "day", "hour", "minute")
    for plural in ("", "s")
}

_UNDERSTOOD = """
COUNT SUM AVG MEAN VARIANCE VAR_POP STDDEV STDDEV_POP MEDIAN QUANTILE_CONT PERCENTILE_CONT COUNT_IF EXTRACT
DATE_PART DATE_TRUNC TIME_BUCKET FLOOR WIDTH_BUCKET BIN_OF AMONG CLAMP LEAST GREATEST COALESCE IFNULL NULLIF
ABS LOWER UPPER IF
"""
#: Functions that are understood, for suggestions.
FUNCTIONS = frozenset(_UNDERSTOOD.split()) | set(PARTS) | SUNDAY_FIRST

#: Why, then the functions that are refused for it.
_REASONS = {
    "shows one person's value; ask for a low or high quantile, as in QUANTILE_CONT(x, 0.05)": """
        MIN MAX ARG_MIN ARG_MAX MIN_BY MAX_BY ARGMIN ARGMAX BOOL_AND BOOL_OR EVERY""",
    "would show rows of people; ask for counts, sums, means or quantiles": """
        ANY_VALUE FIRST LAST FIRST_VALUE LAST_VALUE LIST ARRAY_AGG STRING_AGG GROUP_CONCAT LISTAGG JSON_AGG
        JSON_GROUP_ARRAY HISTOGRAM ARBITRARY MAP_AGG""",
    "gives every person a number or a neighbour; ask for counts and quantiles": """
        ROW_NUMBER RANK DENSE_RANK LAG LEAD NTILE PERCENT_RANK CUME_DIST NTH_VALUE""",
    "means something else each time; write the date, as in DATE '2026-01-31'": """
        NOW CURRENT_DATE CURRENT_TIMESTAMP TODAY CURRENT_TIME GETDATE LOCALTIMESTAMP AGE""",
    "is chance of its own: the noise is drawn after the charge, and nothing else is random": """
        RANDOM RAND UUID GEN_RANDOM_UUID SETSEED NEWID""",
    "would read something that is not a declared dataset; ask about a dataset by its name": """
        READ_CSV READ_CSV_AUTO READ_PARQUET PARQUET_SCAN READ_JSON READ_JSON_AUTO READ_TEXT READ_BLOB GLOB
        QUERY QUERY_TABLE SQLITE_SCAN POSTGRES_SCAN PG_READ_FILE LOAD_FILE GETENV""",
    "is not understood; compare text with =, IN, LIKE, LOWER or UPPER": """
        SUBSTR SUBSTRING LEFT RIGHT LENGTH TRIM CONCAT REPLACE REGEXP_MATCHES REGEXP_REPLACE SPLIT_PART
        STARTS_WITH ENDS_WITH CONTAINS REVERSE""",
    "is not offered; ask for SUM(x * y), SUM(x) and SUM(y), or group by one of them": """
        CORR COVAR_POP COVAR_SAMP REGR_SLOPE REGR_INTERCEPT REGR_R2""",
    "divides by n - 1, and the spread here is the population's; write VAR_POP or STDDEV_POP": """
        VAR_SAMP STDDEV_SAMP""",
    "shows one value; ask for COUNT(*) by it, with ORDER BY and LIMIT 1": "MODE TOPK APPROX_TOP_K",
    "counts values, which no bound holds; COUNT(DISTINCT unit) counts people": "APPROX_COUNT_DISTINCT",
    "would show one person's value; write QUANTILE_CONT(x, 0.5)": "PERCENTILE_DISC QUANTILE_DISC",
    "is not understood; figures are rounded after the noise, and bins are FLOOR(x / 10) * 10": """
        ROUND CEIL CEILING TRUNC""",
    "has no bound; ask for SUM": "PRODUCT",
    "can fail, and an error that depends on the data is an answer without noise; leave it out": """
        SQRT LN LOG LOG2 LOG10 EXP POW POWER MOD ERROR""",
    "is not understood; write DATE_TRUNC('day', x), or a part such as HOUR(x)": """
        STRFTIME DATE_DIFF DATEDIFF DATE_ADD DATE_SUB TO_CHAR LAST_DAY EPOCH SECOND""",
    "is not understood; write ISODOW(x), where 1 is Monday, or MONTH(x)": "DAYNAME MONTHNAME",
}
REFUSED: dict[str, str] = {name: reason for reason, names in _REASONS.items() for name in names.split()}
