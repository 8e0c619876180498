"""What is refused before anything is touched, and how a policy and a request join."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest, MissingModel, PolicyRefused, UnknownName
from sfumato.core.policy import Policy
from sfumato.redaction.job import Job
from sfumato.redaction.plan import prepare
from sfumato.redaction.request import Request, resolve
from sfumato.redaction.settings import MARGINS, Settings
from sfumato.vision.boxes import Boxes
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
    with pytest.raises(PolicyRefused, match=r"redact\.cover in sfumato\.toml.*fill, replace, solid"):
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


def test_video_has_its_own_detector_size_and_limits() -> None:
    ready = prepare(Request(), kinds=("image", "video"), finder=toys)
    assert ready.plan.parameters["detector_size"] == {
        "image": "by the picture",
        "video": "by the frame, up to 2880",
    }
    assert ready.digest("image") != ready.digest("video")
    assert any("up to 2880 pixels on the long side" in limit for limit in ready.plan.limits)
    assert any("voices" in limit for limit in ready.plan.limits)
    chosen = prepare(Request(size=320, audio="drop", threads=1), kinds=("image", "video"), finder=toys)
    assert {job.settings.size for job in chosen.jobs.values()} == {320}
    assert chosen.jobs["image"].finder is chosen.jobs["video"].finder
    assert not any("voices" in limit for limit in chosen.plan.limits)


class Sizes:
    """A factory whose finders note the size that they were built for, and in which one they were used."""

    def __init__(self) -> None:
        self.used: list[int | None] = []

    def __call__(self, settings: Settings) -> Finder:
        used, size = self.used, settings.size

        class Noting(ToyDetector):
            def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
                used.append(size)
                return super().detect(image, floor=floor)

        return Finder([Noting()], settings.hide, thresholds=settings.thresholds)

    def look(self, job: Job, width: int, height: int) -> int | None:
        job.finder.find(np.zeros((height, width, 3), np.uint8))
        return self.used.pop()


def test_a_frame_is_looked_at_in_the_size_it_has() -> None:
    sizes = Sizes()
    video = prepare(Request(), kinds=("video",), finder=sizes).jobs["video"]
    seen = [sizes.look(video, *size) for size in ((320, 180), (854, 480), (1920, 1080), (1080, 1920))]
    assert seen == [640, 960, None, None]  # None: like a picture
    assert sizes.look(video, 3840, 2160) == 2880
    fixed = prepare(Request(size=512), kinds=("video",), finder=sizes).jobs["video"]
    assert sizes.look(fixed, 3840, 2160) == 512
    assert video.finder.seconds > 0


def test_unset_thresholds_count_as_the_detectors_own() -> None:
    for asked in ({"face": 0.999}, {"*": 0.999}, {"faces": 0.999}):
        request = Request(thresholds=asked)
        bound = prepare(request, policy=policy('hide = ["face"]'), finder=toys)
        assert bound.plan.parameters["settings"]["thresholds"] == {"face": 0.5}, asked
        assert any("the threshold of face is 0.5" in note for note in bound.notes)
        free = prepare(request, finder=toys)
        assert free.plan.parameters["settings"]["thresholds"] == {"face": 0.999}
    lower = prepare(Request(thresholds={"face": 0.2}), policy=policy(""), finder=toys)
    assert lower.plan.parameters["settings"]["thresholds"] == {"face": 0.2}
    assert lower.notes == ()
    said = policy("thresholds = { face = 0.7 }")  # the policy itself may be above the default
    assert prepare(Request(thresholds={"face": 0.9}), policy=said, finder=toys).plan.parameters["settings"][
        "thresholds"
    ] == {"face": 0.7}


def test_unset_margins_and_steps_count_as_the_defaults() -> None:
    weak = Request(margins={"face": 0.0, "*": 0.0}, every=100)
    bound = resolve(weak, policy('hide = ["face"]'))
    assert (bound.settings.margin("face"), bound.settings.margin("car")) == (MARGINS["face"], MARGINS["*"])
    assert bound.settings.every == 5
    assert len(bound.notes) == 3
    free = resolve(weak).settings
    assert (free.margin("face"), free.margin("car"), free.every) == (0.0, 0.0, 100)
    said = resolve(Request(), policy('margins = { "*" = 0.05 }')).settings  # the policy itself may be below
    assert said.margin("face") == 0.05
    assert resolve(Request(), policy("margins = { faces = 0.05 }")).settings.margin("face") == 0.05


def test_a_policy_keeps_the_size_from_falling_below_the_default() -> None:
    sizes = Sizes()
    ready = prepare(Request(size=32), policy=policy(""), kinds=("image", "video"), finder=sizes)
    assert sizes.look(ready.jobs["image"], 1000, 800) is None
    assert sizes.look(ready.jobs["video"], 320, 240) == 640
    assert any("size 32" in note for note in ready.notes)
    more = prepare(Request(size=1200), policy=policy(""), kinds=("image", "video"), finder=sizes)
    assert sizes.look(more.jobs["image"], 1000, 800) == 1200
    assert sizes.look(more.jobs["image"], 1000, 2000) is None
    assert sizes.look(more.jobs["video"], 320, 240) == 1200


def test_weights_that_the_policy_names_stay(tmp_path: Path) -> None:
    rules = policy('models = { yolo26 = "own.onnx" }')
    with pytest.raises(PolicyRefused, match=r"redact\.models\.yolo26 in sfumato\.toml"):
        resolve(Request(models={"yolo26": tmp_path / "other.onnx"}), rules, tmp_path)
    same = Request(models={"yolo26": tmp_path / "own.onnx", "centerface": tmp_path / "c.onnx"})
    assert set(resolve(same, rules, tmp_path).settings.models) == {"yolo26", "centerface"}


def test_a_detector_asked_for_comes_beside_the_usual_one() -> None:
    def by_name(settings: Settings) -> Finder:
        detectors = [ToyDetector(), ToyDetector()]
        detectors[1].name = "weak"
        wanted = settings.detectors or ("toy",)
        return Finder([one for one in detectors if one.name in wanted], settings.hide)

    bound = prepare(Request(detectors=("weak",)), policy=policy(""), finder=by_name)
    assert set(bound.jobs["image"].finder.weights) == {"toy", "weak"}
    assert set(prepare(Request(detectors=("weak",)), finder=by_name).jobs["image"].finder.weights) == {"weak"}


def test_what_has_no_effect_is_said() -> None:
    ready = prepare(Request(thresholds={"person": 0.1, "face": 0.2}, margins={"cars": 0.3}), finder=toys)
    assert [note.split(" has")[0] for note in ready.notes] == [
        "the threshold of person",
        "the margin of cars",
    ]
    assert prepare(Settings(hide=("person",)), finder=toys).notes == ()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"hide": 3}, "hide must be names.*got 3"),
        ({"hide": (3,)}, "hide must be names"),
        ({"cover": 7}, "cover must be the name of a cover.*got 7"),
        ({"thresholds": {"face": "0.5"}}, "threshold of 'face' must be a number, got '0.5'"),
        ({"margins": 0.5}, "margins must be a table.*got 0.5"),
        ({"models": "x"}, "models must be a table.*got 'x'"),
        ({"models": {"yolo26": 3}}, "the model of 'yolo26' must be a file, got 3"),
        ({"size": "640"}, "size must be a whole number, got '640'"),
        ({"threads": 1.5}, "threads must be a whole number, got 1.5"),
        ({"every": True}, "every must be a whole number"),
    ],
)
def test_values_of_the_wrong_kind_are_named(wrong: dict[str, Any], why: str) -> None:
    for kind in (Request, Settings):
        with pytest.raises(InvalidRequest, match=why):
            kind(**wrong)


def test_odd_requests_and_too_many_threads_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"settings must be a Settings or a Request, got \{\}"):
        prepare({}, finder=toys)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="threads must be at most"):
        prepare(Request(threads=20_000), finder=toys)


def test_the_digest_follows_settings_and_models() -> None:
    def other(settings: Settings) -> Finder:
        finder = toys(settings)
        finder.weights = {"toy": type(ToyDetector().weights)("toy", "0" * 64, "MIT")}
        return finder

    first = prepare(Request(), finder=toys).digest("image")
    assert prepare(Request(threads=1), finder=toys).digest("image") == first
    assert prepare(Request(cover="solid"), finder=toys).digest("image") != first
    assert prepare(Request(), finder=other).digest("image") != first
