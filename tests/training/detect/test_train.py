"""A detector is trained privately end to end: through a project, its ledger, and a receipt."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
pytest.importorskip("safetensors", reason="needs safetensors: pip install sfumato[training]")
pytest.importorskip("yaml", reason="needs PyYAML: pip install sfumato[data]")

from pathlib import Path  # noqa: E402

from sfumato.core.errors import BudgetSpent, InvalidRequest, PolicyRefused  # noqa: E402
from sfumato.core.project import Project  # noqa: E402
from sfumato.core.receipt import Receipt  # noqa: E402


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose people can pay for a run or two."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    root = tmp_path / "project"
    Project.init(root, name="streets")
    policy = root / "sfumato.toml"
    policy.write_text(
        policy.read_text() + '\n[populations.passers]\nunit = "image"\nepsilon = 20\ndelta = 1e-5\n'
        '\n[populations.people]\nunit = "person"\nepsilon = 20\ndelta = 1e-5\n'
    )
    return Project(root)


@pytest.fixture
def unprobed(monkeypatch):
    """Leave the probe out, which takes seconds and is tested by itself."""
    from sfumato.training.detect import train

    monkeypatch.setattr(train, "probe_detector", lambda model, loss: None)


@pytest.fixture
def asked(yolo, tmp_path, scenes):
    """Settings of a small run; keywords change them."""
    from sfumato.training.detect import DetectorTraining
    from sfumato.training.detect.augment import Augment
    from sfumato.training.settings import TrainingSettings

    data = scenes(tmp_path / "data", 16)

    def make(privacy=None, **changes):
        cost = {"epsilon": 8, "expected_batch": 4, "public_size": 16, "steps": 3, "population": "passers"}
        cost |= privacy or {}
        values = {
            "detector": "yolo26n.yaml",
            "data": data,
            "out": tmp_path / "out.pt",
            "side": 64,
            "augment": Augment(),
            "onnx": False,
            "privacy": TrainingSettings(**cost),
        }
        return DetectorTraining(**(values | changes))

    return make


def test_a_detector_is_trained_and_released_with_a_receipt(yolo, unprobed, project, asked, tmp_path):
    from sfumato.training.detect import train_detector
    from sfumato.training.detect.model import open_detector

    seen = []
    done = train_detector(asked(), project=project, on_step=[seen.append])
    assert [one.step for one in seen] == [1, 2, 3]
    assert all(one.loss is None for one in seen)
    again = open_detector(done.weights, {0: "square", 1: "disc"})
    assert again.names == {0: "square", 1: "disc"}
    assert all(torch.isfinite(p).all() for p in again.parameters())
    receipt = Receipt.read(tmp_path / "out.pt.receipt.json").verify()
    receipt.verify_files([done.weights])
    receipt.verify_ledger(project.ledger)
    body = receipt.body
    assert body["guarantee"]["type"] == "proven"
    assert "one image, added or removed" in body["guarantee"]["statement"]
    assert body["plan"]["event"]["times"] == 3
    assert (body["facts"]["steps"], body["facts"]["detector"]["side"]) == (3, 64)
    assert body["facts"]["detector"]["from"] == {"name": "yolo26n.yaml", "weights": "untrained"}
    assert any("BatchNorm statistics" in limit for limit in body["guarantee"]["limits"])
    told = json.dumps(receipt.to_data())
    assert "out.pt" not in told
    assert str(tmp_path) not in told
    assert not list(tmp_path.glob("*.csv")) + list(tmp_path.glob("*.jpg"))


def test_every_weight_was_noised(yolo, unprobed, project, asked):
    """Also where no picture has anything to say: noise shows in every trainable tensor."""
    from sfumato.training.detect import train_detector

    torch.manual_seed(0)
    before = yolo.build("yolo26n.yaml", 2)
    yolo.save(before, Path(asked().out).with_name("start.pt"), {0: "square", 1: "disc"})
    start = Path(asked().out).with_name("start.pt")
    done = train_detector(asked(detector=start, ema=0.0, freeze="backbone"), project=project)
    assert len(done.receipt.body["facts"]["detector"]["from"]["sha256"]) == 64
    after = yolo.load(done.weights).state_dict()
    for name, value in before.state_dict().items():
        part = int(name.split(".")[1])
        moved = not torch.equal(value, after[name])
        statistics = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert moved == (part > 10 and not statistics), name


def test_a_run_is_taken_up_again(yolo, unprobed, project, asked):
    from sfumato.training.detect import train_detector

    def stop(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    wish = asked(checkpoint_every=1, freeze="neck")
    with pytest.raises(KeyboardInterrupt):
        train_detector(wish, project=project, on_step=[stop])
    charged = project.ledger.totals("passers", "all")
    seen = []
    done = train_detector(wish, project=project, resume=True, on_step=[seen.append])
    assert [one.step for one in seen] == [3]
    assert done.receipt.body["facts"]["resumed"] is True
    assert project.ledger.totals("passers", "all") == charged


def test_files_that_could_not_be_written_are_written_when_the_run_is_taken_up(
    yolo, unprobed, project, asked, monkeypatch
):
    pytest.importorskip("onnx", reason="needs onnx: pip install sfumato[yolo]")
    from sfumato.training.detect import train, train_detector

    def fails(weights, path):
        raise InvalidRequest("no export today")

    monkeypatch.setattr(train, "_export", fails)
    with pytest.raises(InvalidRequest, match="no export today"):
        train_detector(asked({"steps": 1}, onnx=True, freeze="neck"), project=project)
    assert not asked().out.exists()
    seen = []
    wish = asked({"steps": 1}, freeze="neck")
    done = train_detector(wish, project=project, resume=True, on_step=[seen.append])
    assert seen == []
    assert done.receipt.body["facts"]["steps"] == 1


def test_people_are_units_and_a_table_says_who(yolo, unprobed, project, asked, tmp_path):
    from sfumato.training.detect import train_detector

    cost = {"population": "people", "public_size": 4, "expected_batch": 2, "images_per_unit": 3}
    with pytest.raises(InvalidRequest, match="unit is person"):
        train_detector(asked(cost), project=project)
    table = tmp_path / "people.csv"
    rows = [f"images/train/{index:04d}.png,person{index % 4}" for index in range(16)]
    table.write_text("\n".join(["picture,person", *rows]))
    done = train_detector(asked(cost | {"steps": 2}, units=table, freeze="neck"), project=project)
    assert "one person, added or removed" in done.receipt.body["guarantee"]["statement"]


def test_views_public_mosaics_and_half_precision(yolo, unprobed, project, asked, tmp_path, scenes):
    from sfumato.training.detect import train_detector
    from sfumato.training.detect.augment import Augment

    public = scenes(tmp_path / "public", 4, seed=5)
    wish = asked(
        {"views": 2, "steps": 2, "physical_batch": 4, "precision": "bfloat16"},
        augment=Augment(mosaic=0.5),
        public=public,
        optimiser="adamw",
        lr=0.001,
        freeze="neck",
    )
    done = train_detector(wish, project=project)
    assert done.receipt.body["plan"]["parameters"]["views"] == 2


def test_what_cannot_be_paid_or_done_is_refused_before_anything_is_charged(
    yolo, unprobed, project, asked, tmp_path, monkeypatch
):
    from sfumato.training.detect import train_detector

    before = project.ledger.head
    with pytest.raises(BudgetSpent):
        train_detector(asked({"epsilon": 50}), project=project)
    (tmp_path / "there.pt").write_bytes(b"mine")
    with pytest.raises(InvalidRequest, match="exists already"):
        train_detector(asked(out=tmp_path / "there.pt"), project=project)
    with pytest.raises(InvalidRequest, match="no device 'gpu'"):
        train_detector(asked(device="gpu"), project=project)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidRequest, match="sees no GPU"):
        train_detector(asked(device="cuda"), project=project)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyRefused, match="no project here"):
        train_detector(asked())
    assert project.ledger.head == before


def test_a_coupled_loss_is_found_by_the_probe(yolo):
    from sfumato.training.detect.loss import DetectionLoss
    from sfumato.training.detect.model import Steady, prepare
    from sfumato.training.detect.probing import probe_detector

    torch.manual_seed(0)
    model = Steady(prepare(yolo.build("yolo26n.yaml", 2)))

    class Shared(DetectionLoss):
        def __call__(self, outputs, targets, epoch=0):
            found = super().__call__(outputs, targets, epoch)
            return found / targets.real.sum().clamp(min=1)

    with pytest.raises(InvalidRequest, match="one image moves what others give") as refusal:
        probe_detector(model, Shared(model.detector))
    # The loss is all that was found: the model itself is clean.
    kinds = {line.strip(" -").partition(":")[0] for line in str(refusal.value).splitlines()[1:-1]}
    assert kinds <= {"loss", "gradient", "batch size"}
    assert "loss" in kinds


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -1.0},
        {"momentum": 1.0},
        {"optimiser": "lion"},
        {"out": Path("model.onnx")},
        {"ema": float("nan")},
        {"checkpoint_every": -1},
    ],
)
def test_wrong_settings_are_refused(asked, wrong):
    with pytest.raises(InvalidRequest):
        asked(**wrong)


def test_the_learning_rate_rises_and_falls(asked):
    rates = [asked(lr=1.0, warmup=0.2, final_lr=0.1).rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) in (19, 20)
    assert 0.1 <= rates[-1] < 0.12


def pretrained(yolo, folder, scenes, side):
    """Write a detector whose statistics come from PUBLIC pictures, as a pretrained one's do."""
    from sfumato.training.detect.data import Dataset
    from sfumato.training.detect.model import normalisers

    torch.manual_seed(0)
    model = yolo.build("yolo26n.yaml", 2).train()
    for module in normalisers(model):
        module.momentum = None  # a plain average
    public = Dataset(scenes(folder / "pretraining", 32, seed=7), side=side)
    with torch.no_grad():
        for first in range(0, 32, 8):
            model(public.batch(range(first, first + 8), 0).pixels.float() / 255)
    yolo.save(model, folder / "start.pt", {0: "square", 1: "disc"})
    return folder / "start.pt"


def mean_loss(path, data, side):
    """The loss on pictures as they are."""
    from sfumato.training.detect.data import Dataset
    from sfumato.training.detect.loss import DetectionLoss
    from sfumato.training.detect.model import open_detector, prepare

    model = prepare(open_detector(path, {0: "square", 1: "disc"}))
    batch = Dataset(data, side=side).batch(range(16), 0)
    with torch.no_grad():
        return float(DetectionLoss(model)(model(batch.pixels.float() / 255), batch.targets).mean())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_learns_where_epsilon_is_large(yolo, asked, tmp_path, scenes, monkeypatch):
    """Not private to speak of: it shows that the steps point the right way, and that the files work."""
    pytest.importorskip("onnx", reason="needs onnx: pip install sfumato[yolo]")
    import cv2

    from sfumato.training.detect import train_detector
    from sfumato.training.detect.augment import Augment
    from sfumato.vision.detectors import yolo26

    monkeypatch.setenv("SFUMATO_MODELS", str(tmp_path / "models"))
    root = tmp_path / "loose"
    Project.init(root, name="loose", forget=True)
    policy = root / "sfumato.toml"
    budget = '\n[populations.passers]\nunit = "image"\nepsilon = 1000000\ndelta = 1e-5\n'
    policy.write_text(policy.read_text() + budget)
    cost = {"epsilon": 0, "noise_multiplier": "0.01", "expected_batch": 8, "steps": 60}
    start = pretrained(yolo, tmp_path, scenes, 96)
    wish = asked(
        cost,
        detector=start,
        augment=Augment(0, 0, 0, translate=0.1, scale=0.2),
        optimiser="adamw",
        lr=0.002,
        ema=0.9,
        onnx=True,
        side=96,
    )
    done = train_detector(wish, project=Project(root))
    assert mean_loss(done.weights, wish.data, 96) < 0.8 * mean_loss(start, wish.data, 96)
    assert done.onnx is not None
    done.receipt.verify_files([done.weights, done.onnx])
    detector = yolo26.build(model=done.onnx, threads=1)
    assert detector.finds == ("square", "disc")
    detector.detect(cv2.imread(str(wish.data / "images" / "train" / "0000.png")))
