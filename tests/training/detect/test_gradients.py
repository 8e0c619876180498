"""Clipped sums over a whole YOLO26n, every parameter, against a loop over pictures by plain autograd."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

SIDE, CLASSES = 64, 3
MARKED = [
    [(0, 5, 6, 30, 40), (1, 20, 20, 60, 55)],
    [],
    [(2, 0, 0, 64, 64), (0, 8, 8, 40, 40)],
    [(1, 10, 10, 30, 30), (2, 12, 11, 32, 34), (0, 40, 40, 44, 44)],
]


def targets(marked):
    from sfumato.training.detect.loss import Targets

    kinds = [torch.tensor([row[0] for row in rows], dtype=torch.int64) for rows in marked]
    boxes = [torch.tensor([row[1:] for row in rows]).reshape(-1, 4) * 1.0 for rows in marked]
    return Targets.of(list(zip(kinds, boxes, strict=True)))


@pytest.fixture
def case(yolo, double):
    """A detector in double precision whose statistics and scales are no ones and zeros."""
    from sfumato.training.detect.loss import DetectionLoss
    from sfumato.training.detect.model import normalisers, prepare

    torch.manual_seed(5)
    model = prepare(yolo.build("yolo26n.yaml", CLASSES).to(double))
    for module in normalisers(model):
        torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
        torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
        torch.nn.init.uniform_(module.weight, 0.7, 1.5)
        torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    # Boxes of the two coarser levels fit two that are marked, so that all parts of the head have work.
    with torch.no_grad():
        for branch in (yolo.head(model).cv2, yolo.head(model).one2one_cv2):
            branch[1][-1].bias.fill_(1.0)
            branch[2][-1].bias.copy_(torch.tensor([0.5, 0.5, 1.5, 1.5]))
    return model, DetectionLoss(model, epochs=10), torch.rand(len(MARKED), 3, SIDE, SIDE, dtype=double)


def alone(model, loss, pixels, index):
    """One picture's gradient by plain autograd, through the package's formulas for a batch of one."""
    value = loss(model(pixels[index : index + 1]), targets(MARKED[index : index + 1])).sum()
    free = {name: p for name, p in model.named_parameters() if p.requires_grad}
    made = torch.autograd.grad(value, list(free.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(free.items(), made, strict=True)
    }


def looped(model, loss, pixels, owners, bound):
    """Clipped sums, unit by unit."""
    sums, norms = {}, []
    for unit in sorted(set(owners)):
        rows = [alone(model, loss, pixels, i) for i, owner in enumerate(owners) if owner == unit]
        whole = {name: sum(row[name] for row in rows) for name in rows[0]}
        norm = float(torch.sqrt(sum((g**2).sum() for g in whole.values())))
        factor = min(1.0, bound * (1 - 2.0**-10) / norm)
        norms.append(norm)
        for name, g in whole.items():
            sums[name] = sums.get(name, 0) + factor * g
    return sums, norms


def check(case, owners, bound, units=None):
    from sfumato.training.engine import Clipping, Engine

    model, loss, pixels = case
    engine = Engine(model, clipping=Clipping("flat", bound))
    made = engine.gradients(lambda: loss(model(pixels), targets(MARKED)), units=units)
    sums, norms = looped(model, loss, pixels, owners, bound)
    assert made.norms.tolist() == pytest.approx(norms, rel=1e-12)
    assert set(made.sum) == set(sums)
    largest = max(float(g.abs().max()) for g in sums.values())
    worst = max(float((made.sum[name] - g).abs().max()) for name, g in sums.items())
    assert worst <= 1e-12 * largest
    return sums


def test_every_parameter_of_yolo26n_has_its_clipped_sum(case):
    sums = check(case, [0, 1, 2, 3], 100.0)
    assert len(sums) == 366
    assert sum(g.numel() for g in sums.values()) == sum(p.numel() for p in case[0].parameters())
    still = [name for name, g in sums.items() if float(g.abs().max()) == 0]
    assert not still, still


def test_a_persons_pictures_are_clipped_as_one(case):
    check(case, [7, 3, 7, 3], 50.0, units=torch.tensor([7, 3, 7, 3]))


def test_frozen_layers_cost_nothing_and_are_not_in_the_sum(yolo, case):
    from sfumato.training.detect.model import prepare

    prepare(case[0], "neck")
    sums = check(case, [0, 1, 2, 3], 100.0)
    assert {name.split(".")[1] for name in sums} == {"23"}


def test_batchnorm_with_the_batchs_statistics_is_refused(case):
    from sfumato.core.errors import InvalidRequest
    from sfumato.training.engine import Clipping, Engine

    model, loss, pixels = case
    model.train()
    with pytest.raises(InvalidRequest, match=r"(?i)batch.?norm|statistics of the batch"):
        Engine(model, clipping=Clipping("flat", 1.0)).gradients(lambda: loss(model(pixels), targets(MARKED)))


def test_the_packages_loss_would_not_pass(yolo, case):
    """The wrong twin: the package's loss of the batch, shared out, is no sum of single pictures' losses."""
    from detection_scenes import package_batch

    model, loss, pixels = case
    stock = yolo.stock_criterion(model, 10)
    free = [p for p in model.parameters() if p.requires_grad]
    theirs = torch.autograd.grad(stock(model(pixels), package_batch(MARKED, SIDE))[0].sum(), free)
    ours = torch.autograd.grad(loss(model(pixels), targets(MARKED)).sum(), free)
    largest = max(float(g.abs().max()) for g in ours)
    assert max(float((a - b).abs().max()) for a, b in zip(theirs, ours, strict=True)) > 0.05 * largest


def test_the_loss_of_a_half_precision_model_is_taken_in_single_precision(yolo):
    from sfumato.training.detect.loss import DetectionLoss
    from sfumato.training.detect.model import prepare

    torch.manual_seed(3)
    model = prepare(yolo.build("yolo26n.yaml", CLASSES))
    pictures = torch.rand(len(MARKED), 3, SIDE, SIDE)
    ours = DetectionLoss(model)
    with torch.no_grad():
        exact = ours(model(pictures), targets(MARKED))
        with torch.autocast("cpu", torch.bfloat16):
            made = ours(model(pictures), targets(MARKED))
    assert made.dtype == torch.float32
    assert torch.allclose(made, exact, rtol=0.05)
