from __future__ import annotations

from fractions import Fraction

import pytest

from sfumato.core.errors import PolicyError
from sfumato.core.policy import Policy

WHOLE = """
[project]
name = "city"
[purposes.traffic]
actions = ["redact"]
[populations.residents]
unit = "person"
epsilon = 0.3
delta = 1e-6
[populations.residents.shares.a]
epsilon = 0.1
[populations.residents.shares.b]
kind = "sum"
epsilon = 0.2
delta = 1e-6
[redact]
hide = ["face", "person"]
thresholds = { person = 0.1 }
"""


def test_decimals_are_exact_so_that_shares_add_up() -> None:
    """As floats, 0.1 + 0.2 > 0.3 would be refused."""
    residents = Policy.parse(WHOLE).populations["residents"]
    assert residents.epsilon == Fraction(3, 10)
    assert residents.delta == Fraction(1, 10**6)


def test_a_policy_survives_being_written() -> None:
    policy = Policy.parse(WHOLE)
    assert Policy.parse(policy.to_toml()) == policy


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('[project]\nname = "x"\nnmae = "y"', "did you mean 'name'"),
        ('[project]\nname = "x"\n[population.r]\nunit = "person"', "did you mean 'populations'"),
        (WHOLE.replace("thresholds", "treshold"), "did you mean 'thresholds'"),
        (WHOLE.replace("kind", "knid"), "did you mean 'kind'"),
        (WHOLE.replace("epsilon = 0.2", "epsilon = 0.21"), "adds up to 0.31"),
        (WHOLE.replace("0.3", "-1"), "must lie in 0"),
        (WHOLE.replace("0.3", "nan"), "finite"),
        (WHOLE.replace("0.3", "inf"), "finite"),
        (WHOLE.replace('"person"\nepsilon', '"persn"\nepsilon'), "'person'"),
        (
            WHOLE.replace("1e-6\n[populations.residents.shares.a]", "2\n[populations.residents.shares.a]"),
            "0..1",
        ),
        ("[project", "not valid TOML"),
        ("", "'project' is missing"),
    ],
)
def test_a_wrong_policy_is_named_with_the_way_out(source: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        Policy.parse(source)


def test_a_policy_that_cannot_be_read(tmp_path) -> None:
    (tmp_path / "sfumato.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy.read(tmp_path / "sfumato.toml")


def test_a_policy_cannot_be_changed_after_it_was_read() -> None:
    policy = Policy.parse(WHOLE)
    with pytest.raises(Exception, match="frozen"):
        policy.redact.cover = "blur"  # type: ignore[misc]


DATASET = """
[project]
name = "x"
[purposes.research]
[populations.patients]
unit = "patient"
epsilon = 1
[datasets.clinic]
keep = ["age"]
unit = "patient"
population = "patients"
purposes = ["research"]
[datasets.clinic.generalise]
age = "band 10"
"""


def test_a_dataset_section_reads_and_writes_back() -> None:
    policy = Policy.parse(DATASET)
    assert str(policy.datasets["clinic"].generalise["age"]) == "band 10"
    assert Policy.parse(policy.to_toml()) == policy


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('population = "patients"', 'population = "patient"', "did you mean 'patients'"),
        ('purposes = ["research"]', 'purposes = ["sales"]', "'sales', which is not declared"),
        ('keep = ["age"]', 'keep = ["name"]', "generalise names 'age'"),
        ('"band 10"', '"band ten"', "rule is"),
        ("keep =", "kep =", "did you mean 'keep'"),
        ("datasets.clinic", 'datasets."../x"', "should match pattern"),
    ],
)
def test_a_dataset_section_must_add_up(old: str, new: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy.parse(DATASET.replace(old, new))


def test_a_wrong_amount_is_shown_once() -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.parse('[project]\nname = "x"\n[populations.p]\nunit = "person"\nepsilon = -1')
    assert str(caught.value).count("got -1") == 1


PIXELS = '[project]\nname = "x"\n[populations.street]\nunit = "{}"\nepsilon = 4\n{}'


def test_a_population_may_be_of_pixels_that_are_replaced() -> None:
    policy = Policy.parse(PIXELS.format("16 pixels", 'relation = "replace-one"'))
    assert policy.populations["street"].pixels == 16
    assert Policy.parse(policy.to_toml()) == policy
    assert Policy.parse(PIXELS.format("image", "")).populations["street"].pixels == 0


@pytest.mark.parametrize(
    ("unit", "more", "words"),
    [
        ("16 pixels", "", 'relation = "replace-one"'),
        ("0 pixels", "", "person, patient, vehicle, household, image, or a number of pixels"),
        ("persons", "", "person, patient, vehicle, household, image, or a number of pixels"),
        ("16 pixels\\n", "", "or a number of pixels"),
        (
            "16 pixels",
            'relation = "replace-one"\n[datasets.cams]\npopulation = "street"',
            "whose unit is pixels",
        ),
    ],
)
def test_a_unit_that_is_none_is_refused(unit: str, more: str, words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        Policy.parse(PIXELS.format(unit, more))
