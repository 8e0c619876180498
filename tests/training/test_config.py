"""A run's file is strict: every mistake is named, with the way out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from sfumato.core.errors import InvalidRequest
from sfumato.training.config import Config, OptimiserSection

GOOD = """
[data]
folder = "pictures"
[model]
name = "resnet18-gn"
[privacy]
epsilon = 3
delta = 1e-5
public_size = 50000
expected_batch = 500
[train]
epochs = 2
"""


def change(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_file() -> None:
    config = Config.parse(GOOD)
    settings = config.settings()
    assert (settings.epsilon, settings.delta, settings.rate) == (3, Fraction(1, 10**5), Fraction(1, 100))
    assert settings.steps == 200
    assert config.facts() == {
        "model": {"name": "resnet18-gn"},
        "optimiser": {"name": "sgd", "lr": 0.5, "schedule": "constant"},
        "augment": [],
    }


def test_paths_are_from_the_file_s_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(GOOD + '[out]\nmodel = "/elsewhere/model.safetensors"\ntensorboard = "board"\n')
    config = Config.read(path)
    assert config.data.folder == tmp_path.resolve() / "pictures"
    assert config.out.model == Path("/elsewhere/model.safetensors")
    assert config.out.tensorboard == tmp_path.resolve() / "board"
    assert config.out.checkpoint is None
    with pytest.raises(InvalidRequest, match="cannot be read"):
        Config.read(tmp_path / "other.toml")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("[data", "not valid TOML"),
        (change("epsilon = 3", "epsilom = 3"), r"unknown key 'privacy.epsilom'; did you mean 'epsilon'"),
        (GOOD + "[outt]\n", "unknown key 'outt'; did you mean 'out'"),
        (change("[train]\nepochs = 2", ""), "'train' is missing"),
        (change('folder = "pictures"', ""), "one of folder, npz and dataset, got none"),
        (change('folder = "pictures"', 'folder = "a"\nnpz = "b"'), "got folder and npz"),
        (change('folder = "pictures"', 'dataset = "clinic"'), "dataset and label"),
        (change('name = "resnet18-gn"', ""), "give a name"),
        (change('name = "resnet18-gn"', 'name = "a"\nfeatures = "scattering"'), "give a name"),
        (change('name = "resnet18-gn"', 'name = "a"\nfeatures = "frozen"'), "need public weights"),
        (change("epsilon = 3", "epsilon = -3"), r"'privacy.epsilon'.*-3"),
        (change("epsilon = 3", ""), "target epsilon or a noise_multiplier"),
        (change("expected_batch = 500", ""), "two of rate, expected_batch and public_size"),
        (change("expected_batch = 500", "expected_batch = 60000"), "at most public_size"),
        (change("epochs = 2", "epochs = 2\nsteps = 3"), "steps or epochs"),
        (change("epochs = 2", "epochs = 2\nviews = 4"), "name augment as well"),
        (change("epochs = 2", 'epochs = 2\ndevice = "tpu"'), "'train.device'.*got tpu"),
        (change("epochs = 2", "epochs = 2\nphysical_batch = true"), "'train.physical_batch'"),
        (GOOD + "[optimiser]\nlr = 0\n", "'optimiser.lr'.*got 0"),
        (GOOD + "[optimiser]\nlr = inf\n", "'optimiser.lr'"),
        (GOOD + '[optimiser]\nname = "adam"\nmomentum = 0.9\n', "momentum is of sgd"),
        (GOOD + '[optimiser]\nname = "sgdd"\n', "'optimiser.name'.*got sgdd"),
        (change("public_size = 50000", 'public_size = "many"'), "'privacy.public_size'.*got many"),
    ],
)
def test_a_mistake_is_named(source: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        Config.parse(source)


def test_options_replace_what_the_file_says() -> None:
    config = Config.parse(change("epsilon = 3", "noise_multiplier = 1.5"))
    other = config.with_privacy(epsilon=Fraction(1, 2))
    assert (other.settings().epsilon, other.settings().noise_multiplier) == (Fraction(1, 2), 0)
    with pytest.raises(InvalidRequest, match=r"privacy\.epsilon"):
        config.with_privacy(epsilon="x")


def test_schedules_end_at_zero() -> None:
    for name, half in (("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)):
        section = OptimiserSection(schedule=name)
        assert section.factor(0, 10) == 1
        assert section.factor(5, 10) == pytest.approx(half)
        assert section.factor(10, 10) == pytest.approx(1.0 if name == "constant" else 0)
