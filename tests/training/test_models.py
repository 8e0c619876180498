"""The contract of every model in the catalogue: a new file is tested before its author writes a test."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from sfumato.core.errors import InvalidRequest, UnknownName  # noqa: E402
from sfumato.training.models import CATALOGUE, build  # noqa: E402

NORMS = torch.nn.modules.batchnorm._NormBase
PARAMETERS = {"mnist-cnn": 26_010, "wrn-16-4": 2_748_890, "resnet18-gn": 11_173_962}


def small(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    channels, size = (1, 28) if name == "mnist-cnn" else (3, 32)
    model = build(name, classes=10, channels=channels, size=size)
    return model, torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_it_gives_one_row_of_outputs_per_image(name: str) -> None:
    model, images = small(name)
    assert model(images).shape == (3, 10)
    assert model.head.out_features == 10
    assert CATALOGUE.load(name).summary


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_it_has_no_layer_that_mixes_images_and_no_buffer(name: str) -> None:
    model, _ = small(name)
    assert not [m for m in model.modules() if isinstance(m, NORMS)]
    assert not list(model.buffers())


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model, images = small(name)
    model(images).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_it_has_the_size_of_the_papers(name: str, count: int) -> None:
    model, _ = small(name)
    assert sum(p.numel() for p in model.parameters()) == count


def test_vit_tiny_has_the_size_of_the_paper_at_224() -> None:
    # 5,717,416 in the paper with 1000 classes; less the class token and its position.
    model = build("vit-tiny", classes=1000, size=224)
    assert sum(p.numel() for p in model.parameters()) == 5_717_416 - 2 * 192


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(UnknownName, match="did you mean 'resnet18-gn'"):
        build("resnet18_gn")


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("mnist-cnn", {"size": 8}, "at least 16 pixels"),
        ("vit-tiny", {"size": 30}, "multiple of 4"),
        ("wrn-16-4", {"classes": 1}, "classes must be"),
        ("wrn-16-4", {"channels": True}, "channels must be"),
        ("wrn-16-4", {"pretrained": True}, "no public weights"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, settings: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        build(name, **settings)


def test_a_timm_that_does_not_load_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.training.models import _timm

    def broken(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(_timm.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(_timm.importlib, "import_module", broken)
    with pytest.raises(InvalidRequest, match=r"nms does not exist.*does not fit this PyTorch.*resnet18-gn"):
        build("timm:resnet18")


def test_a_missing_timm_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.training.models import _timm

    monkeypatch.setattr(_timm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match="pip install timm"):
        build("timm:resnet18")


def test_timm_models_are_built_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("timm")
    fake.__version__ = "0"
    fake.is_model = lambda name: name == "tiny"
    fake.list_models = lambda pretrained: ["tiny"]
    fake.create_model = lambda name, pretrained, num_classes, in_chans: torch.nn.Linear(in_chans, num_classes)
    monkeypatch.setitem(sys.modules, "timm", fake)
    monkeypatch.setattr("sfumato.training.models._timm.importlib.util.find_spec", lambda name: object())
    assert build("timm:tiny", classes=4, channels=3).out_features == 4
    with pytest.raises(InvalidRequest, match="Did you mean 'tiny'"):
        build("timm:tinny")
