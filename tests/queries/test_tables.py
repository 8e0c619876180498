from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from city import write_flow

from sfumato.core.errors import InvalidRequest, PolicyRefused, UnknownName
from sfumato.core.identity import Actor
from sfumato.core.project import Project
from sfumato.core.versions import versions
from sfumato.queries.sources import arrow_kind, fingerprint, kinds_of
from sfumato.queries.tables import purpose_for, resolve

City = Callable[..., Project]


def test_a_table_outside_the_catalogue_is_recorded_once_for_each_content(city: City) -> None:
    project = city()
    gate = project.gate()
    first = resolve(project, "flow", "traffic-planning", gate)
    again = resolve(project, "flow", "traffic-planning", gate)
    assert first.version == again.version == "flow@1"
    write_flow(project.root / "flow.parquet", seed=2)
    assert resolve(project, "flow", "traffic-planning", gate).version == "flow@2"
    assert [row.body["how"] for row in versions(project.ledger)] == ["table", "table"]
    write_flow(project.root / "flow.parquet", seed=1)
    assert resolve(project, "flow", "traffic-planning", gate).version == "flow@1"


def test_its_fingerprint_is_keyed_and_follows_the_bytes(city: City, tmp_path: Path) -> None:
    project = city()
    section = project.policy.datasets["flow"]
    place = str(project.root / "flow.parquet")
    first = fingerprint(project, section, "flow", place)
    other = Project.init(tmp_path / "other", name="other")
    assert fingerprint(other, section, "flow", place) != first
    write_flow(project.root / "flow.parquet", seed=3)
    assert fingerprint(project, section, "flow", place) != first


def test_who_may_not_record_is_told_who_can(city: City) -> None:
    project = city()
    gate = project.gate(actor=Actor("uid:9", "analyst", "x" * 32, names=("eva",)))
    with pytest.raises(PolicyRefused, match="A curator records it"):
        resolve(project, "flow", "traffic-planning", gate)
    resolve(project, "flow", "traffic-planning", project.gate())
    assert resolve(project, "flow", "traffic-planning", gate).version == "flow@1"


def test_only_what_is_kept_may_be_asked(city: City) -> None:
    project = city()
    table = resolve(project, "flow", "traffic-planning", project.gate())
    assert table.kinds == {
        "vehicle": "integer",
        "junction": "text",
        "hour": "integer",
        "speed": "number",
        "at": "timestamp",
        "truck": "boolean",
    }
    policy = project.root / "sfumato.toml"
    policy.write_text(policy.read_text().replace(', "truck"]', "]"))
    fresh = Project(project.root)
    assert "truck" not in resolve(fresh, "flow", "traffic-planning", fresh.gate()).kinds


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('table = "flow.parquet"', 'table = "gone.parquet"', "not there"),
        ('table = "flow.parquet"', 'table = "sfumato.toml"', "must be Parquet or CSV"),
        ('table = "flow.parquet"', 'table = "postgresql://host/db#flow"', "release"),
        ('table = "flow.parquet"', 'table = "postgresql://host/db"', "no table"),
        ('table = "flow.parquet"', 'table = "s3://bucket/flow.parquet"', "must be a file"),
        ('unit = "vehicle"\npurposes', 'unit = "plate"\npurposes', "no column 'plate'"),
    ],
)
def test_what_is_no_table_is_refused(city: City, old: str, new: str, said: str) -> None:
    project = city()
    policy = project.root / "sfumato.toml"
    assert old in policy.read_text()
    policy.write_text(policy.read_text().replace(old, new))
    fresh = Project(project.root)
    with pytest.raises(InvalidRequest, match=said):
        resolve(fresh, "flow", "traffic-planning", fresh.gate())


def test_a_table_without_people_is_refused(city: City) -> None:
    project = city()
    policy = project.root / "sfumato.toml"
    policy.write_text(
        policy.read_text().replace('population = "drivers"\nunit = "vehicle"\n', 'unit = "vehicle"\n', 1)
    )
    fresh = Project(project.root)
    with pytest.raises(PolicyRefused, match="population"):
        resolve(fresh, "flow", "traffic-planning", fresh.gate())


def test_a_dataset_that_is_not_there(city: City) -> None:
    project = city()
    with pytest.raises(UnknownName, match="flow"):
        resolve(project, "flwo", "traffic-planning", project.gate())


def test_a_csv_file_has_text_until_the_policy_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeffwho,how much\n1,2\n")
    assert kinds_of(str(path), "a") == {"who": "text", "how much": "text"}


def test_kinds_of_arrow() -> None:
    spelled = {
        "dictionary<values=string, indices=int32, ordered=0>": "text",
        "decimal128(10, 2)": "number",
        "date32[day]": "date",
        "uint8": "integer",
        "bool": "boolean",
        "struct<a: int64>": None,
        "time64[us]": None,
        "binary": None,
    }
    assert {one: arrow_kind(one) for one in spelled} == spelled


def test_the_purpose_is_the_only_one_that_allows_questions(city: City) -> None:
    policy = city().policy
    assert purpose_for(policy, "") == "traffic-planning"
    assert purpose_for(policy, "research") == "research"  # the gate refuses it
    none = policy.model_copy(update={"purposes": {}})
    assert purpose_for(none, "") == "not declared"
