"""YOLO's loss per picture: the package's own for a batch of one, and no picture in another's gradient."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

SIDE, CLASSES = 96, 3
#: Boxes of four pictures: several, none, one, and many that overlap.
MARKED = [
    [(0, 10, 12, 50, 60), (1, 30, 30, 90, 80), (2, 5, 60, 30, 90)],
    [],
    [(1, 0, 0, 96, 96)],
    [(2, 20, 20, 60, 60), (2, 24, 22, 62, 64), (0, 22, 18, 58, 66), (1, 40, 40, 44, 44), (0, 70, 8, 90, 30)],
]


def targets(marked=MARKED):
    from sfumato.training.detect.loss import Targets

    return Targets.of(
        [
            (
                torch.tensor([row[0] for row in rows], dtype=torch.int64),
                torch.tensor([row[1:] for row in rows]).reshape(-1, 4) * 1.0,
            )
            for rows in marked
        ]
    )


def package_batch(marked):
    from detection_scenes import package_batch

    return package_batch(marked, SIDE)


def outputs_of(model, pictures):
    """The model's outputs as leaves, so that gradients can be taken at them."""
    with torch.no_grad():
        made = model(pictures)
    leaves = []

    def leaf(part):
        fresh = {"feats": part["feats"]}
        for name in ("boxes", "scores"):
            fresh[name] = part[name].clone().requires_grad_(True)
            leaves.append(fresh[name])
        return fresh

    found = {name: leaf(part) for name, part in made.items()} if "one2many" in made else leaf(made)
    return found, leaves


def one_picture(found, index):
    if "one2many" in found:
        return {name: one_picture(part, index) for name, part in found.items()}
    return {
        "boxes": found["boxes"][index : index + 1],
        "scores": found["scores"][index : index + 1],
        "feats": [feat[index : index + 1] for feat in found["feats"]],
    }


@pytest.fixture(scope="module")
def wide():
    """Floats of 64 bits, as the package's loss makes its own tensors in the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.float64
    torch.set_default_dtype(before)


@pytest.fixture(scope="module", params=["yolo26n.yaml", "yolo11n.yaml"])
def detector(request, yolo, wide):
    """A detector of two heads and one bin, and one of one head and 16 bins; boxes of a trained one's size."""
    torch.manual_seed(3)
    model = yolo.build(request.param, CLASSES).train().to(wide)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    pictures = torch.rand(len(MARKED), 3, SIDE, SIDE)
    found, leaves = outputs_of(model, pictures)
    with torch.no_grad():
        for leaf in leaves[1::2]:
            leaf += torch.randn_like(leaf) + 2
        for leaf in leaves[::2]:
            leaf += torch.randn_like(leaf)
    return model, found, leaves


def test_each_loss_is_the_packages_for_that_picture_alone(yolo, detector):
    from sfumato.training.detect.loss import DetectionLoss

    model, found, leaves = detector
    ours = DetectionLoss(model, epochs=10)(found, targets())
    stock = yolo.stock_criterion(model, epochs=10)
    alone = torch.stack(
        [stock(one_picture(found, i), package_batch([rows]))[0].sum() for i, rows in enumerate(MARKED)]
    )
    assert ours.shape == (len(MARKED),)
    assert torch.allclose(ours, alone, rtol=1e-12, atol=0)
    weights = torch.tensor([0.3, 1.7, 0.9, 2.1])
    a = torch.autograd.grad((ours * weights).sum(), leaves)
    b = torch.autograd.grad((alone * weights).sum(), leaves)
    for mine, theirs in zip(a, b, strict=True):
        assert float((mine - theirs).abs().max()) <= 1e-12 * float(theirs.abs().max())
        assert float(theirs.abs().max()) > 0


def test_the_schedule_is_the_packages(yolo, detector):
    from sfumato.training.detect.loss import DetectionLoss, schedule

    model, found, _ = detector
    stock = yolo.stock_criterion(model, epochs=10)
    ours = DetectionLoss(model, epochs=10)
    for epoch in range(12):
        alone = stock(one_picture(found, 3), package_batch(MARKED[3:]))[0].sum()
        assert ours(one_picture(found, 3), targets(MARKED[3:]), epoch).tolist() == pytest.approx(
            [alone.item()], rel=1e-12
        )
        if hasattr(stock, "update"):
            stock.update()
            assert schedule(epoch + 1, 10) == pytest.approx((stock.o2m, stock.o2o), abs=1e-15)


def moved(loss, detector, change):
    """How far the gradient at picture 0 moves when only picture 3's labels change, relative to its size."""
    _, _, leaves = detector
    other = [*MARKED[:3], change]
    first = torch.autograd.grad(loss(MARKED), leaves, retain_graph=True)
    second = torch.autograd.grad(loss(other), leaves, retain_graph=True)
    return max(
        float((a[0] - b[0]).abs().max() / a[0].abs().max()) for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("change", [[], [(0, 1, 1, 90, 90)] * 9])
def test_no_pictures_labels_move_another_pictures_gradient(yolo, detector, change):
    from sfumato.training.detect.loss import DetectionLoss

    model, found, _ = detector
    ours = DetectionLoss(model, epochs=10)
    assert moved(lambda marked: ours(found, targets(marked)).sum(), detector, change) == 0.0
    # The wrong twin: the package's loss of the whole batch.
    stock = yolo.stock_criterion(model, epochs=10)
    assert moved(lambda marked: stock(found, package_batch(marked))[0].sum(), detector, change) > 0.01


def test_a_batch_without_any_box_and_an_empty_batch(yolo, detector):
    from sfumato.training.detect.loss import DetectionLoss

    model, found, leaves = detector
    ours = DetectionLoss(model, epochs=10)
    losses = ours(found, targets([[], [], [], []]))
    stock = yolo.stock_criterion(model, epochs=10)
    alone = [stock(one_picture(found, i), package_batch([[]]))[0].sum().item() for i in range(4)]
    assert losses.tolist() == pytest.approx(alone, rel=1e-12)
    assert all(
        torch.isfinite(g).all()
        for g in torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
        if g is not None
    )


def test_labels_of_other_pictures_are_refused(yolo, detector):
    from sfumato.core.errors import InvalidRequest
    from sfumato.training.detect.loss import DetectionLoss

    model, found, _ = detector
    with pytest.raises(InvalidRequest, match="4 pictures came with the labels of 3"):
        DetectionLoss(model)(found, targets(MARKED[:3]))
