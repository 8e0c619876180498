"""What is refused before anything is touched, and how a policy and a request join."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.core.errors import InvalidRequest, MissingModel, PolicyRefused, UnknownName
from sfumato.core.policy import Policy
from sfumato.redaction.plan import VIDEO_SIZE, prepare
from sfumato.redaction.request import Request, resolve
from sfumato.redaction.settings import Settings
from sfumato.vision.finder import Finder
from sfumato.vision.toy import ToyDetector


def policy(rules: str) -> Policy:
    return Policy.parse(f'[project]\nname = "demo"\n[redact]\n{rules}')


def toys(settings: Settings) -> Finder:
    detectors = [ToyDetector(label) for label in settings.hide]
    for detector in detectors:
        detector.name = f"toy-{detector.finds[0]}"
    return Finder(detectors, settings.hide, thresholds=settings.thresholds)


def test_without_a_policy_a_request_stands_as_it_is() -> None:
    settings = resolve(Request(hide=("person",), cover="blur", every=30, thresholds={"person": 0.9})).settings
    assert settings.hide == ("person",)
    assert (settings.cover, settings.every, settings.thresholds) == ("blur", 30, {"person": 0.9})
    assert resolve(Request()).settings == Settings()


def test_the_policy_gives_the_defaults() -> None:
    rules = policy(
        'hide = ["person"]\ncover = "solid"\nevery = 2\naudio = "mute"\n'
        'thresholds = { person = 0.05 }\nmargins = { person = 0.4 }\nmodels = { yolo26 = "weights/y.onnx" }'
    )
    settings = resolve(Request(), rules, Path("/project")).settings
    assert (settings.hide, settings.cover, settings.every, settings.audio) == (
        ("person",),
        "solid",
        2,
        "mute",
    )
    assert settings.thresholds == {"person": 0.05}
    assert settings.margin("person") == 0.4
    assert settings.margin("face") == 0.3  # of the classes that the policy does not name
    assert settings.models == {"yolo26": Path("/project/weights/y.onnx")}


def test_a_request_may_hide_more_and_never_less() -> None:
    rules = policy('hide = ["face", "person"]')
    resolved = resolve(Request(hide=("face",)), rules)
    assert resolved.settings.hide == ("face", "person")
    assert "the policy hides person as well" in resolved.notes[0]
    wider = resolve(Request(hide=("car", "people", "face")), rules)
    assert set(wider.settings.hide) >= {"car", "people", "face", "person"}
    assert wider.notes == ()  # "people" are persons: nothing was added


def test_weaker_numbers_give_way_to_the_policy() -> None:
    rules = policy('thresholds = { people = 0.1 }\nmargins = { "*" = 0.5 }\nevery = 2\naudio = "drop"')
    asked = Request(thresholds={"person": 0.6}, margins={"face": 0.0}, every=9, audio="copy")
    resolved = resolve(asked, rules)
    settings = resolved.settings
    assert settings.thresholds["person"] == 0.1
    assert settings.margin("face") == 0.5
    assert (settings.every, settings.audio) == (2, "drop")
    assert len(resolved.notes) == 4
    stricter = resolve(Request(thresholds={"person": 0.05}, margins={"face": 0.9}, every=1), rules)
    assert stricter.settings.thresholds["person"] == 0.05
    assert stricter.settings.margin("face") == 0.9
    assert stricter.settings.every == 1
    assert stricter.notes == ()


def test_a_cosmetic_cover_needs_a_policy_that_names_one() -> None:
    with pytest.raises(PolicyRefused, match=r"redact\.cover in sfumato\.toml.*fill, solid"):
        resolve(Request(cover="pixelate"), policy('cover = "solid"'))
    assert resolve(Request(cover="solid"), policy("")).settings.cover == "solid"
    assert resolve(Request(cover="pixelate"), policy('cover = "blur"')).settings.cover == "pixelate"


def test_exact_settings_are_bound_by_the_policy_too() -> None:
    asked = Settings(hide=("face",), cover="solid", thresholds={"face": 0.7})
    resolved = resolve(Request.of(asked), policy('hide = ["person"]\nthresholds = { face = 0.2 }'))
    assert resolved.settings.hide == ("face", "person")
    assert resolved.settings.thresholds == {"face": 0.2}
    assert resolve(Request.of(asked)).settings == asked


@pytest.mark.parametrize(
    ("asked", "error", "way_out"),
    [
        (Request(hide=("fase",)), UnknownName, "did you mean 'face'"),
        (Request(cover="fil"), UnknownName, "did you mean 'fill'"),
        (Request(detectors=("centreface",)), UnknownName, "did you mean 'centerface'"),
        (Request(models={"yolo": Path("x.onnx")}), UnknownName, "yolo26"),
        (Request(margins={"fcae": 0.2}), UnknownName, "did you mean 'face'"),
        (Request(thresholds={"fcae": 0.2}), UnknownName, "did you mean 'face'"),
        (Request(cover_options={"colour": (0, 0, 0)}), UnknownName, "option of the cover 'fill'"),
        (Request(hide=("person",)), MissingModel, "sfumato models pull"),
        (Request(hide=()), InvalidRequest, "name at least one class"),
        (Request(thresholds={"face": 7}), InvalidRequest, "between 0 and 1"),
        (Request(every=0), InvalidRequest, "every must be at least 1"),
    ],
)
def test_what_cannot_be_done_is_refused(asked: Request, error: type[Exception], way_out: str) -> None:
    with pytest.raises(error, match=way_out):
        prepare(asked)


def test_the_plan_spells_everything_out() -> None:
    ready = prepare(Request(hide=("face",), margins={"*": 0.2}), finder=toys, purpose="planning")
    plan = ready.plan
    assert (plan.action, plan.guarantee, plan.purpose) == ("redact", "heuristic", "planning")
    parameters = plan.parameters
    assert parameters["settings"]["thresholds"] == {"face": 0.5}
    assert parameters["settings"]["margins"] == {"face": 0.2}
    assert parameters["cover"] == "secure"
    assert parameters["models"] == [
        {"name": "toy", "sha256": ToyDetector().weights.sha256, "licence": "Apache-2.0"}
    ]
    assert "cosmetic" not in plan.statement
    json.dumps(plan.to_data())  # plain data


@pytest.mark.parametrize("cover", ["blur", "pixelate"])
def test_cosmetic_covers_are_called_so(cover: str) -> None:
    plan = prepare(Request(cover=cover), finder=toys).plan
    for text in (plan.statement, plan.limits[0]):
        assert "cosmetic" in text
        assert "96 % re-identified through every peer's blur, chance 2.5 %" in text
    assert plan.parameters["cover"] == "cosmetic"


def test_video_has_a_cheaper_detector_size_and_its_own_limits() -> None:
    ready = prepare(Request(), kinds=("image", "video"), finder=toys)
    assert ready.jobs["image"].settings.size is None
    assert ready.jobs["video"].settings.size == VIDEO_SIZE
    assert ready.digest("image") != ready.digest("video")
    assert any("voices" in limit for limit in ready.plan.limits)
    chosen = prepare(Request(size=320, audio="drop"), kinds=("image", "video"), finder=toys)
    assert {job.settings.size for job in chosen.jobs.values()} == {320}
    assert chosen.jobs["image"].finder is chosen.jobs["video"].finder
    assert not any("voices" in limit for limit in chosen.plan.limits)


def test_the_digest_follows_settings_and_models() -> None:
    def other(settings: Settings) -> Finder:
        finder = toys(settings)
        finder.weights = {"toy": type(ToyDetector().weights)("toy", "0" * 64, "MIT")}
        return finder

    first = prepare(Request(), finder=toys).digest("image")
    assert prepare(Request(threads=1), finder=toys).digest("image") == first
    assert prepare(Request(cover="solid"), finder=toys).digest("image") != first
    assert prepare(Request(), finder=other).digest("image") != first
