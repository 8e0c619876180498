"""A run from its file to a model with a receipt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
pytest.importorskip("safetensors", reason="needs safetensors: pip install sfumato[training]")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from sfumato.core.errors import InvalidRequest, PolicyRefused  # noqa: E402
from sfumato.core.project import Project  # noqa: E402
from sfumato.training import memory, models  # noqa: E402
from sfumato.training.config import Config  # noqa: E402
from sfumato.training.job import augmented, explain, prepare  # noqa: E402

POLICY = """
[project]
name = "doors"
[populations.people]
unit = "UNIT"
epsilon = 100
delta = 1e-4
"""
RUN = """
[data]
npz = "data.npz"
[model]
name = "mnist-cnn"
[privacy]
noise_multiplier = 1
delta = 1e-5
public_size = 40
expected_batch = 10
[optimiser]
lr = 0.1
[train]
steps = 3
[out]
every = 2
"""


Make = Callable[..., tuple[Project, Config]]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Return a function that makes a project with data and a run's file."""

    def make(
        *changes: tuple[str, str], unit: str = "image", more: str = "", units: bool = False
    ) -> tuple[Project, Config]:
        root = tmp_path / "project"
        Project.init(root).close()
        (root / "sfumato.toml").write_text(POLICY.replace("UNIT", unit))
        rng = np.random.default_rng(3)
        arrays = {"x_train": rng.integers(0, 255, (40, 28, 28), np.uint8), "y_train": np.arange(40) % 3}
        arrays |= {"x_test": arrays["x_train"][:9], "y_test": arrays["y_train"][:9]}
        if units:
            arrays["unit_train"] = np.arange(40) // 4
        np.savez(root / "data.npz", **arrays)
        source = RUN
        for old, new in changes:
            assert old in source
            source = source.replace(old, new)
        (root / "run.toml").write_text(source + more)
        return Project(root), Config.read(root / "run.toml")

    return make


def test_a_whole_model_is_trained_and_released(made: Make) -> None:
    project, config = made()
    job = prepare(config, project)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    result = job.run(project)
    assert (result.steps, result.accuracy) == (3, None)
    released = load_file(result.path)
    assert all(not torch.equal(value, before[name]) for name, value in released.items())
    assert result.receipt.recorded
    assert result.receipt.body["facts"]["model"] == {"name": "mnist-cnn"}
    assert result.path.with_name("model.safetensors.receipt.json").exists()
    charged = [entry for entry in project.ledger.entries() if entry.kind == "reserve"]
    assert len(charged) == 1
    assert str(project.root) not in str(result.receipt.body)


def test_memory_is_kept_from_the_second_step_on_and_not_after(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not memory._is_glibc():
        pytest.skip("the C library is not glibc, or the environment sets its allocator")
    project, config = made()
    inside: list[int] = []
    prepare(config, project).run(project, on_step=[lambda progress: inside.append(memory._inside)])
    assert (inside, memory._inside) == ([0, 1, 1], 0)


def test_explaining_reads_and_charges_nothing(made: Make) -> None:
    project, config = made(("data.npz", "nowhere.npz"))
    planned = explain(config, project)
    assert planned.steps == 3
    assert "noise multiplier 1" in planned.explain()
    assert not [entry for entry in project.ledger.entries() if entry.kind == "reserve"]


def test_a_head_on_scattering_features(made: Make) -> None:
    project, config = made(
        ('name = "mnist-cnn"', 'features = "scattering"'), ("[model]", 'test = "data.npz"\n[model]')
    )
    told: list[tuple[str, int, int]] = []
    job = prepare(config, project)
    result = job.run(project, tell=lambda *at: told.append(at))
    assert told[-1] == ("features", 40, 40)
    assert 0 <= result.accuracy <= 1
    assert sorted(load_file(result.path)) == ["bias", "weight"]


def test_a_head_on_frozen_features_of_public_weights(made: Make, tmp_path: Path) -> None:
    weights = tmp_path / "public.safetensors"
    public = models.build("mnist-cnn", classes=7, channels=1, size=28)
    save_file(public.state_dict(), weights)
    project, config = made(
        ('name = "mnist-cnn"', f'name = "mnist-cnn"\nfeatures = "frozen"\nweights = "{weights}"')
    )
    job = prepare(config, project)
    assert isinstance(job.model, nn.Linear)
    assert torch.equal(job.extractor.model[0].weight, public.body[0].weight)
    job.run(project)


def test_weights_that_do_not_fit_are_refused(made: Make, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    project, config = made(('name = "mnist-cnn"', f'name = "mnist-cnn"\nweights = "{path}"'))
    path.write_bytes(b"rubbish")
    with pytest.raises(InvalidRequest, match="do not read as safetensors"):
        prepare(config, project)
    save_file({"other": torch.zeros(3)}, path)
    with pytest.raises(InvalidRequest, match=r"no tensor .* fits"):
        prepare(config, project)


@pytest.mark.parametrize("way", ["", "group", "freeze"])
def test_batchnorm_is_refused_or_replaced(made: Make, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    def build(name: str, *, classes: int, channels: int, size: int, pretrained: bool) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes)
        )

    def ready(*given: object, **named: object) -> nn.Module:
        model = build(*given, **named)
        model(torch.zeros(2, 1, 28, 28))
        return model

    monkeypatch.setattr(models, "build", ready)
    changes = (('name = "mnist-cnn"', f'name = "own"\nbatchnorm = "{way}"'),)
    project, config = made(*changes)
    if not way:
        with pytest.raises(InvalidRequest, match="replace_batchnorm"):
            prepare(config, project)
        assert not [entry for entry in project.ledger.entries() if entry.kind == "reserve"]
        return
    result = prepare(config, project).run(project)
    assert len(result.replaced) == 1
    assert "BatchNorm2d(8) -> " in result.receipt.body["facts"]["replaced"][0]


@pytest.mark.parametrize(
    "optimiser",
    ['name = "adam"\nlr = 0.01', 'momentum = 0.9\nschedule = "cosine"', "ema = 0.5"],
)
def test_optimisers_schedules_and_averages(made: Make, optimiser: str) -> None:
    lines = optimiser.replace("lr = 0.01", "")
    change = ("lr = 0.1", optimiser if "lr" in optimiser else f"lr = 0.1\n{lines}")
    project, config = made(change, ("[train]", '[train]\naugment = ["flip", "shift"]\nviews = 2'))
    assert prepare(config, project).run(project).steps == 3


def test_the_average_is_what_is_released(made: Make) -> None:
    project, config = made(("lr = 0.1", "lr = 0.1\nema = 0.9"))
    job = prepare(config, project)
    result = job.run(project)
    released = load_file(result.path)
    assert any(not torch.equal(released[name], value) for name, value in job.model.state_dict().items())


def test_a_stopped_run_is_taken_up_at_no_charge(made: Make) -> None:
    project, config = made(("steps = 3", "steps = 5"))

    class Stop(Exception):
        pass

    def stop(progress: object) -> None:
        if progress.step == 3:
            raise Stop

    with pytest.raises(Stop):
        prepare(config, project).run(project, on_step=[stop])
    steps: list[int] = []
    result = prepare(config, project).run(project, resume=True, on_step=[lambda p: steps.append(p.step)])
    assert steps == [4, 5]
    assert result.receipt.body["facts"]["resumed"] is True
    assert len([entry for entry in project.ledger.entries() if entry.kind == "reserve"]) == 1
    with pytest.raises(InvalidRequest, match="no run with these settings"):
        prepare(config, project).run(project, resume=True)
    assert len([entry for entry in project.ledger.entries() if entry.kind == "reserve"]) == 1


def test_a_budget_of_people_asks_whose_each_picture_is(made: Make) -> None:
    project, config = made(unit="person")
    with pytest.raises(InvalidRequest, match="do not say whose each picture is"):
        prepare(config, project)


def test_people_with_several_pictures_are_one_unit(made: Make) -> None:
    project, config = made(("public_size = 40", "public_size = 12"), unit="person", units=True)
    result = prepare(config, project).run(project)
    assert "one person" in result.receipt.body["guarantee"]["statement"]


def test_without_a_population_nothing_is_trained(made: Make) -> None:
    project, config = made()
    (project.root / "sfumato.toml").write_text('[project]\nname = "doors"\n')
    with pytest.raises(PolicyRefused, match="population"):
        prepare(config, Project(project.root))


def test_a_device_that_is_not_there(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    project, config = made(("steps = 3", 'steps = 3\ndevice = "cuda"'))
    with pytest.raises(InvalidRequest, match="there is no cuda here"):
        prepare(config, project)


def test_views_are_mirrored_and_moved_each_by_itself() -> None:
    torch.manual_seed(5)
    images = torch.arange(32 * 16 * 16.0).reshape(32, 1, 16, 16)
    mirrored = augmented(images, flip=True, shift=False)
    same = [torch.equal(one, other) for one, other in zip(mirrored, images, strict=True)]
    turned = [torch.equal(one, other.flip(2)) for one, other in zip(mirrored, images, strict=True)]
    assert all(a != b for a, b in zip(same, turned, strict=True))
    assert 4 < sum(same) < 28
    moved = augmented(images, flip=False, shift=True)
    assert moved.shape == images.shape
    for one, own in zip(moved, images, strict=True):
        assert one.min() >= own.min()
        assert one.max() <= own.max()
    assert len({float(one[0, 8, 8] - own[0, 8, 8]) for one, own in zip(moved, images, strict=True)}) > 10
    assert augmented(images, flip=False, shift=False) is images


def test_shifts_cover_every_place_alike() -> None:
    torch.manual_seed(6)
    ramp = torch.arange(16.0).expand(4000, 1, 16, 16)
    places: Tensor = augmented(ramp, flip=False, shift=True)[:, 0, 8, 8] - 8
    counts = [int((places == step).sum()) for step in range(-2, 3)]
    assert sum(counts) == 4000
    assert min(counts) > 650


CLINIC = """
[project]
name = "clinic"
[purposes.research]
lawful_basis = "BASIS"
actions = ["train"]
[populations.patients]
unit = "patient"
epsilon = 100
delta = 1e-4
[datasets.scans]
keep = ["folder"]
unit = "name:(p[0-9]+)_"
population = "patients"
purposes = ["research"]
"""
SCANS = """
[data]
dataset = "scans"
label = "folder"
side = 16
[model]
name = "mnist-cnn"
[privacy]
noise_multiplier = 1
delta = 1e-5
public_size = 8
expected_batch = 4
purpose = "research"
[train]
steps = 2
"""


def clinic(root: Path, basis: str) -> tuple[Project, Config]:
    from PIL import Image

    from sfumato.data.add import add
    from sfumato.data.door import Request
    from sfumato.data.opening import open_data
    from sfumato.redaction.images.strip import stripped

    for number in range(16):
        path = root / "pictures" / ("ill" if number % 4 < 2 else "well") / f"p{number // 2}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (number * 10, 0, 0)).save(path)
    Project.init(root / "clinic").close()
    (root / "clinic" / "sfumato.toml").write_text(CLINIC.replace("BASIS", basis))
    project = Project(root / "clinic")
    catalogue, store = open_data(project)
    add(catalogue, store, project.policy, Request(dataset="scans", path=root / "pictures"), strip=stripped)
    (root / "clinic" / "run.toml").write_text(SCANS)
    return project, Config.read(root / "clinic" / "run.toml")


def test_a_version_of_the_catalogue_is_trained_on_and_named(tmp_path: Path) -> None:
    project, config = clinic(tmp_path, "contract")
    result = prepare(config, project).run(project)
    plan = result.receipt.body["plan"]
    assert plan["datasets"] == [{"name": "scans"}]
    assert plan["population"] == "patients"
    assert "one patient" in result.receipt.body["guarantee"]["statement"]


def test_who_does_not_consent_is_not_trained_on(tmp_path: Path) -> None:
    from sfumato.data.contents import people
    from sfumato.data.opening import open_data

    project, config = clinic(tmp_path, "consent")
    catalogue, store = open_data(project)
    everybody = people(store, catalogue.find("scans"))
    for one in everybody[:5]:
        project.consent.give(one, "research")
    job = prepare(config, project)
    assert set(job.data.units) == set(everybody[:5])
    project.consent.withdraw(everybody[0], "research")
    with pytest.raises(PolicyRefused):
        job.run(project)
    job = prepare(config, project)
    assert set(job.data.units) == set(everybody[1:5])
    assert job.run(project).steps == 2
