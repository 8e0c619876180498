"""Forty questions as analysts write them, and tables to ask them of: roads, a hospital, labelled pictures.

Thirty have the `Query` that they mean beside them, written by hand; ten are refused, with words of why.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import Any

from question_tables import POLICY, SHAPES, UNITS, tables

from sfumato.queries.model import (
    Aggregate,
    Binned,
    Call,
    Column,
    Constant,
    Expr,
    Join,
    Key,
    Order,
    Part,
    Query,
    Truncated,
)

__all__ = ["ANSWERED", "MACROS", "POLICY", "REFUSED", "SHAPES", "UNITS", "Question", "tables"]


@dataclass(frozen=True)
class Question:
    """A question, and the query that it means or words of its refusal.

    Args:
        duckdb: whether DuckDB, with `MACROS`, answers it exactly as it is written.
    """

    sql: str
    query: Query | None = None
    refused: str = ""
    duckdb: bool = True


#: Functions that DuckDB lacks.
MACROS = (
    "CREATE MACRO clamp(x, low, high) AS CASE WHEN x < low THEN low WHEN x > high THEN high ELSE x END",
    "CREATE MACRO bin_of(x, low, width, n) AS CASE WHEN x IS NOT NULL THEN"
    " CAST(least(greatest(floor((x - low) / width), 0), n - 1) AS BIGINT) END",
    "CREATE MACRO width_bucket(x, low, high, n) AS"
    " bin_of(x, low - (high - low) / n, (high - low) / n, n + 2)",
)


def _call(op: str, *args: Any) -> Call:
    return Call(
        op, tuple(each if not isinstance(each, int | float | str | date) else Constant(each) for each in args)
    )


def _c(name: str) -> Column:
    return Column(name.rpartition(".")[2], name.rpartition(".")[0])


def _keys(*names: str) -> tuple[Key, ...]:
    return tuple(Key(_c(name).name, _c(name)) for name in names)


def _count(name: str = "count", where: Expr | None = None, of: Expr | None = None) -> Aggregate:
    return Aggregate("count", name, of=of, where=where)


def _median(name: str, of: str, q: Fraction = Fraction(1, 2)) -> Aggregate:
    return Aggregate("quantile", name, of=_c(of), quantile=q)


_UNITS = Aggregate("units", "units")

TRAFFIC = (
    Question(
        "SELECT junction, hour, COUNT(*) FROM flow GROUP BY 1, 2",
        Query(table="flow", aggregates=(_count(),), keys=_keys("junction", "hour")),
    ),
    Question(
        "select count(distinct vehicle) as vehicles from flow where junction = 'Bridge'",
        Query(
            table="flow",
            aggregates=(Aggregate("units", "vehicles"),),
            where=_call("=", _c("junction"), "Bridge"),
        ),
    ),
    Question(
        """
        SELECT junction, AVG(speed) AS mean_speed, STDDEV_POP(speed) AS spread
        FROM flow
        WHERE hour BETWEEN 7 AND 9 AND kind IN ('car', 'truck')
        GROUP BY junction
        ORDER BY mean_speed DESC
        """,
        Query(
            table="flow",
            aggregates=(
                Aggregate("mean", "mean_speed", of=_c("speed")),
                Aggregate("stddev", "spread", of=_c("speed")),
            ),
            where=_call(
                "and",
                _call(">=", _c("hour"), 7),
                _call("<=", _c("hour"), 9),
                _call("in", _c("kind"), "car", "truck"),
            ),
            keys=_keys("junction"),
            order=(Order("mean_speed", descending=True),),
        ),
    ),
    Question(
        "SELECT FLOOR(speed / 10) * 10 AS speed_from, COUNT(*) AS n FROM flow GROUP BY speed_from ORDER BY 1",
        Query(
            table="flow",
            aggregates=(_count("n"),),
            keys=(Key("speed_from", _call("*", Binned(_c("speed"), Fraction(0), Fraction(10), 14), 10)),),
            where=None,
            order=(Order("speed_from"),),
        ),
    ),
    Question(
        "SELECT DATE_TRUNC('week', passed) AS week, COUNT(DISTINCT vehicle) FROM flow GROUP BY ALL",
        Query(table="flow", aggregates=(_UNITS,), keys=(Key("week", Truncated("week", _c("passed"))),)),
    ),
    Question(
        "SELECT ISODOW(passed) AS weekday, HOUR(passed) AS hour_of_day, COUNT(*) FROM flow f GROUP BY 1, 2",
        Query(
            table="flow",
            aggregates=(_count(),),
            keys=(
                Key("weekday", Part("weekday", _c("passed"))),
                Key("hour_of_day", Part("hour", _c("passed"))),
            ),
        ),
    ),
    Question(
        "SELECT junction, kind, COUNT(*) AS n FROM flow GROUP BY ROLLUP (junction, kind)",
        Query(table="flow", aggregates=(_count("n"),), keys=_keys("junction", "kind"), rollup=True),
    ),
    Question(
        "SELECT junction, COUNT(*) FILTER (WHERE speed > 50) AS fast, COUNT(*) AS n FROM flow"
        " GROUP BY junction HAVING COUNT(*) > 100 ORDER BY fast DESC LIMIT 3",
        Query(
            table="flow",
            aggregates=(_count("fast", _call(">", _c("speed"), 50)), _count("n")),
            keys=_keys("junction"),
            having=(("n", ">", 100.0),),
            order=(Order("fast", descending=True),),
            limit=3,
        ),
    ),
    Question(
        "SELECT MEDIAN(speed), QUANTILE_CONT(speed, 0.85) AS v85 FROM flow WHERE kind = 'car' AND NOT toll",
        Query(
            table="flow",
            aggregates=(_median("median_speed", "speed"), _median("v85", "speed", Fraction(17, 20))),
            where=_call("and", _call("=", _c("kind"), "car"), _call("not", _c("toll"))),
        ),
    ),
    Question(
        """SELECT CASE WHEN hour BETWEEN 6 AND 21 THEN 'day' ELSE 'night' END AS part,
                  SUM(CASE WHEN toll THEN 1 ELSE 0 END) AS paid
           FROM flow WHERE passed >= '2026-02-01' AND passed < '2026-03-01' GROUP BY part""",
        Query(
            table="flow",
            aggregates=(_count("paid", _c("toll")),),
            keys=(
                Key(
                    "part",
                    _call(
                        "case",
                        _call("and", _call(">=", _c("hour"), 6), _call("<=", _c("hour"), 21)),
                        "day",
                        "night",
                    ),
                ),
            ),
            where=_call(
                "and",
                _call(">=", _c("passed"), datetime(2026, 2, 1)),
                _call("<", _c("passed"), datetime(2026, 3, 1)),
            ),
        ),
    ),
    Question(
        "SELECT kind, SUM(LEAST(GREATEST(speed, 0), 100)) AS total FROM flow WHERE speed IS NOT NULL"
        " GROUP BY kind",
        Query(
            table="flow",
            aggregates=(Aggregate("sum", "total", of=_c("speed"), bounds=(Fraction(0), Fraction(100))),),
            keys=_keys("kind"),
            where=_call("not", _call("is null", _c("speed"))),
        ),
    ),
)

HOSPITAL = (
    Question(
        "SELECT ward, COUNT(*), AVG(nights) FROM admissions GROUP BY ward",
        Query(
            table="admissions",
            aggregates=(_count(), Aggregate("mean", "mean_nights", of=_c("nights"))),
            keys=_keys("ward"),
        ),
    ),
    Question(
        "SELECT ward, urgent, COUNT(DISTINCT patient) AS patients FROM admissions"
        " WHERE admitted BETWEEN '2026-01-01' AND '2026-03-31' GROUP BY ward, urgent",
        Query(
            table="admissions",
            aggregates=(Aggregate("units", "patients"),),
            keys=_keys("ward", "urgent"),
            where=_call(
                "and",
                _call(">=", _c("admitted"), date(2026, 1, 1)),
                _call("<=", _c("admitted"), date(2026, 3, 31)),
            ),
        ),
    ),
    Question(
        "SELECT EXTRACT(MONTH FROM admitted) AS month, SUM(nights) FROM admissions GROUP BY 1 ORDER BY 1",
        Query(
            table="admissions",
            aggregates=(Aggregate("sum", "sum_nights", of=_c("nights")),),
            keys=(Key("month", Part("month", _c("admitted"))),),
            order=(Order("month"),),
        ),
    ),
    Question(
        "SELECT WIDTH_BUCKET(age, 20, 100, 4) AS ages,"
        " PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY nights) AS long"
        " FROM admissions GROUP BY ages",
        Query(
            table="admissions",
            aggregates=(_median("long", "nights", Fraction(9, 10)),),
            keys=(Key("ages", Binned(_c("age"), Fraction(0), Fraction(20), 6)),),
        ),
    ),
    Question(
        """
        SELECT a.ward, AVG(l.value) AS hba1c
        FROM admissions AS a
        JOIN labs AS l ON a.patient = l.patient
        WHERE l.test = 'HbA1c' AND a.age >= 65
        GROUP BY a.ward
        """,
        Query(
            table="admissions",
            alias="a",
            joins=(Join("labs", "l"),),
            aggregates=(Aggregate("mean", "hba1c", of=_c("l.value")),),
            where=_call("and", _call("=", _c("l.test"), "HbA1c"), _call(">=", _c("a.age"), 65)),
            keys=(Key("ward", _c("a.ward")),),
        ),
    ),
    Question(
        "SELECT ward, COUNT(DISTINCT CASE WHEN value > 200 THEN patient END) AS high,"
        " COUNT(DISTINCT patient) AS n"
        " FROM admissions LEFT JOIN labs USING (patient) GROUP BY ward",
        Query(
            table="admissions",
            alias="admissions",
            joins=(Join("labs", "labs", "left"),),
            aggregates=(
                Aggregate("units", "high", where=_call(">", _c("labs.value"), 200)),
                Aggregate("units", "n"),
            ),
            keys=(Key("ward", _c("admissions.ward")),),
        ),
    ),
    Question(
        "SELECT test, COUNT(value) AS n, VAR_POP(value) AS spread FROM labs WHERE value IS NOT NULL"
        " GROUP BY test",
        Query(
            table="labs",
            aggregates=(_count("n", of=_c("value")), Aggregate("variance", "spread", of=_c("value"))),
            keys=_keys("test"),
            where=_call("not", _call("is null", _c("value"))),
        ),
    ),
    Question(
        "WITH old AS (SELECT patient, ward AS place, nights FROM admissions WHERE age >= 70)"
        " SELECT place, COUNT(DISTINCT patient) AS patients, AVG(nights) AS stay FROM old"
        " WHERE nights > 0 GROUP BY place HAVING patients >= 10",
        Query(
            table="admissions",
            aggregates=(Aggregate("units", "patients"), Aggregate("mean", "stay", of=_c("nights"))),
            where=_call("and", _call(">=", _c("age"), 70), _call(">", _c("nights"), 0)),
            keys=(Key("place", _c("ward")),),
            having=(("patients", ">=", 10.0),),
        ),
    ),
    Question(
        "SELECT DAYOFWEEK(taken) AS day, COUNT_IF(test = 'CRP' AND value > 100) AS inflamed FROM labs"
        " GROUP BY day",
        Query(
            table="labs",
            aggregates=(
                _count(
                    "inflamed",
                    _call("and", _call("=", _c("test"), "CRP"), _call(">", _c("value"), 100)),
                ),
            ),
            keys=(
                Key(
                    "day",
                    _call(
                        "case",
                        _call("=", Part("weekday", _c("taken")), 7),
                        0,
                        Part("weekday", _c("taken")),
                    ),
                ),
            ),
        ),
    ),
    Question(
        "SELECT ward, STDDEV(CLAMP(nights, 0, 30)) FROM admissions WHERE ward NOT LIKE 'neuro%'"
        " GROUP BY ward",
        Query(
            table="admissions",
            aggregates=(
                Aggregate("stddev", "stddev_nights", of=_c("nights"), bounds=(Fraction(0), Fraction(30))),
            ),
            where=_call("not", _call("like", _c("ward"), "neuro%")),
            keys=_keys("ward"),
        ),
        duckdb=False,  # DuckDB's divides by n - 1
    ),
)

PICTURES = (
    Question(
        "SELECT label, COUNT(*) AS boxes, COUNT(DISTINCT image) AS images FROM labels GROUP BY label"
        " ORDER BY boxes DESC",
        Query(
            table="labels",
            aggregates=(_count("boxes"), Aggregate("units", "images")),
            keys=_keys("label"),
            order=(Order("boxes", descending=True),),
        ),
    ),
    Question(
        "SELECT annotator, tool, MEDIAN(area) FROM labels WHERE label ILIKE 'F%' OR label = 'plate'"
        " GROUP BY 1, 2",
        Query(
            table="labels",
            aggregates=(_median("median_area", "area"),),
            keys=_keys("annotator", "tool"),
            where=_call(
                "or",
                _call("like", _call("lower", _c("label")), "f%"),
                _call("=", _c("label"), "plate"),
            ),
        ),
    ),
    Question(
        "SELECT annotator, AVG(CASE WHEN checked THEN 1 ELSE 0 END) AS share FROM labels GROUP BY annotator",
        Query(
            table="labels",
            aggregates=(Aggregate("mean", "share", of=_call("case", _c("checked"), 1, 0)),),
            keys=_keys("annotator"),
        ),
    ),
    Question(
        "SELECT TIME_BUCKET(INTERVAL '1 day', drawn) AS day, COUNT(*) FROM labels"
        " WHERE drawn < DATE '2026-03-15'"
        " GROUP BY day",
        Query(
            table="labels",
            aggregates=(_count(),),
            keys=(Key("day", Truncated("day", _c("drawn"))),),
            where=_call("<", _c("drawn"), datetime(2026, 3, 15)),
        ),
    ),
    Question(
        "SELECT COALESCE(NULLIF(tool, 'polygon'), 'other') AS how, AVG(score) AS score FROM labels"
        " GROUP BY how",
        Query(
            table="labels",
            aggregates=(Aggregate("mean", "score", of=_c("score")),),
            keys=(
                Key(
                    "how",
                    _call(
                        "coalesce",
                        _call("case", _call("<>", _c("tool"), "polygon"), _c("tool")),
                        "other",
                    ),
                ),
            ),
        ),
    ),
    Question(
        "SELECT UPPER(label) AS label, SUM(area) AS covered FROM labels WHERE NOT (score < 0.5 AND checked)"
        " GROUP BY UPPER(label) LIMIT 5",
        Query(
            table="labels",
            aggregates=(Aggregate("sum", "covered", of=_c("area")),),
            keys=(Key("label", _call("upper", _c("label"))),),
            where=_call("not", _call("and", _call("<", _c("score"), 0.5), _c("checked"))),
            limit=5,
        ),
    ),
    Question(
        "SELECT BIN_OF(score, 0, 0.25, 4) AS quarter, COUNT(*) AS n FROM labels GROUP BY quarter",
        Query(
            table="labels",
            aggregates=(_count("n"),),
            keys=(Key("quarter", Binned(_c("score"), Fraction(0), Fraction(1, 4), 4)),),
        ),
    ),
    Question(
        "SELECT AVG(ABS(score - area) * 2) AS gap, COUNT(*) FROM labels",
        Query(
            table="labels",
            aggregates=(
                Aggregate("mean", "gap", of=_call("*", _call("abs", _call("-", _c("score"), _c("area"))), 2)),
                _count(),
            ),
        ),
    ),
    Question(
        "SELECT AMONG(label, 'face', 'plate') AS what, COUNT(DISTINCT image) AS images FROM labels"
        " GROUP BY what",
        Query(
            table="labels",
            aggregates=(Aggregate("units", "images"),),
            keys=(Key("what", _c("label"), ("face", "plate")),),
        ),
        duckdb=False,
    ),
)

REFUSED = (
    Question(
        "SELECT junction, MAX(speed) FROM flow GROUP BY junction", refused="ask for a low or high quantile"
    ),
    Question("SELECT * FROM admissions WHERE age > 90", refused="rows are about people"),
    Question("SELECT patient, COUNT(*) FROM admissions GROUP BY patient", refused="one group per person"),
    Question("SELECT COUNT(DISTINCT annotator) FROM labels", refused="write COUNT(DISTINCT image)"),
    Question("SELECT SUM(speed) / COUNT(*) FROM flow", refused="write AVG"),
    Question(
        "SELECT ward, RANK() OVER (ORDER BY COUNT(*)) FROM admissions GROUP BY ward",
        refused="window functions",
    ),
    Question(
        "SELECT COUNT(*) FROM admissions a JOIN labs l ON a.age = l.value", refused="ON a.patient = l.patient"
    ),
    Question("SELECT COUNT(*) FROM flow WHERE vehicle = 4711", refused="vehicle is the privacy unit"),
    Question("SELECT COUNT(*) FROM labels WHERE label > 5", refused="label is text"),
    Question("SELECT COUNT(*) FROM flow; DROP TABLE flow", refused="one question at a time"),
)

ANSWERED = TRAFFIC + HOSPITAL + PICTURES
