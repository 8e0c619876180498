"""What cannot be bounded per image is refused by name, before anything is summed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from torch import Tensor, nn  # noqa: E402

from sfumato.core.errors import InvalidRequest  # noqa: E402
from sfumato.training.engine import Engine  # noqa: E402

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def engine_of(model: nn.Module, forward: Callable[[nn.Module], Tensor] | None = None) -> Callable[[], object]:
    engine = Engine(model)
    return lambda: engine.gradients(lambda: (forward or (lambda m: m(X)))(model).flatten(1).sum(1))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), r"1 \(BatchNorm1d\)"),
        (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, affine=False)), "statistics of the batch"),
        (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6).requires_grad_(False)), "statistics of the batch"),
        (nn.BatchNorm1d(6, track_running_stats=False).eval(), "statistics of the batch"),
        (nn.InstanceNorm2d(6, affine=True, track_running_stats=True), "running statistics"),
        (nn.LSTM(6, 4), "recurrent"),
        (nn.GRUCell(6, 4), "recurrent"),
        (nn.LazyLinear(3), "without a shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_modules_are_refused_at_once(model: nn.Module, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        Engine(model)


@pytest.mark.parametrize("frozen", [False, True])
def test_batch_norm_that_wakes_up_later_is_refused(frozen: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6).requires_grad_(not frozen)).eval()
    run = engine_of(model)
    run()
    model.train()
    with pytest.raises(InvalidRequest, match="statistics of the batch"):
        run()


def test_functional_batch_norm_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="statistics of the batch"):
        engine_of(nn.Linear(6, 6), lambda m: nn.functional.batch_norm(m(X), None, None, training=True))()


@pytest.mark.parametrize(
    "forward",
    [
        lambda m: m(X) / m(X).sum(),
        lambda m: m(X).softmax(0),
        lambda m: m(X) - m(X).mean(0),
        lambda m: m(X) + m(X).flip(0),
    ],
    ids=["normaliser", "softmax", "centred", "mixed"],
)
def test_images_that_meet_are_found_by_plain_autograd(forward: Callable[[nn.Module], Tensor]) -> None:
    with pytest.raises(InvalidRequest, match="images meet each other"):
        engine_of(nn.Linear(6, 3), lambda m: forward(m).square())()


def test_a_first_dimension_that_is_not_the_batch() -> None:
    with pytest.raises(InvalidRequest, match="'bias', 'weight': it met an activation of 8 rows"):
        engine_of(nn.Linear(3, 3), lambda m: m(X.view(8, 3)).view(4, 6))()


def test_tokens_first_are_found_even_where_lengths_agree() -> None:
    model = nn.Linear(6, 6)
    tokens = torch.randn(4, 4, 6)
    with pytest.raises(InvalidRequest, match="dim 0"):
        engine_of(model, lambda m: m(tokens).square().transpose(0, 1))()


def test_a_parameter_with_a_row_for_each_place_of_the_batch() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.zeros(4, 6))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.rows

    with pytest.raises(InvalidRequest, match="'rows': its shape"):
        engine_of(Rows())()


class Hidden(torch.autograd.Function):
    """A function of one's own, which no mode sees."""

    @staticmethod
    def forward(ctx: object, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x)  # type: ignore[attr-defined]
        return x @ weight

    @staticmethod
    def backward(ctx: object, g: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return None, x.t() @ g


def test_a_way_that_was_not_recorded_is_named() -> None:
    model = nn.ParameterDict({"w": torch.ones(6, 2)})
    with pytest.raises(InvalidRequest, match="'w': it is used in a way that cannot be seen"):
        engine_of(model, lambda m: Hidden.apply(X, m["w"]))()


def test_a_parameter_that_is_not_the_models_is_refused() -> None:
    other = nn.Linear(6, 6)
    with pytest.raises(InvalidRequest, match="not one of the model's"):
        engine_of(nn.Linear(6, 6), lambda m: m(X) + other(X))()


def test_operations_that_cannot_be_told_apart() -> None:
    with pytest.raises(InvalidRequest, match="EmbeddingBag"):
        engine_of(nn.EmbeddingBag(9, 3), lambda m: m(torch.zeros(4, 2, dtype=torch.long)))()
    with pytest.raises(InvalidRequest, match="max_norm"):
        engine_of(nn.Embedding(9, 3, max_norm=1.0), lambda m: m(torch.zeros(4, 2, dtype=torch.long)))()
    with pytest.raises(InvalidRequest, match="an activation of 5 rows"):
        engine_of(nn.ParameterDict({"w": torch.ones(6)}), lambda m: X * (torch.ones(5, 6) @ m["w"]).sum())()


@pytest.mark.parametrize(
    "losses", [lambda m: m(X).sum(), lambda m: m(X), lambda m: 3.0, lambda m: m.weight.sum((0, 1))[None]]
)
def test_losses_are_one_per_image(losses: Callable[[nn.Module], object]) -> None:
    model = nn.Linear(6, 2)
    with pytest.raises(InvalidRequest, match=r"one loss per image|parameters alone"):
        Engine(model).gradients(lambda: losses(model))  # type: ignore[arg-type,return-value]


def test_lengths_that_do_not_fit() -> None:
    model = nn.Linear(6, 2)
    engine = Engine(model)
    for how, why in (
        ({"units": torch.zeros(3, dtype=torch.long)}, "units must be 4"),
        ({"units": torch.zeros(4)}, "whole numbers"),
        ({"views": 3}, "3 views"),
        ({"views": 0}, "views must be"),
        ({"weights": torch.zeros(3)}, "weights must be"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            engine.gradients(lambda: model(X).sum(1), **how)


def test_nothing_to_train() -> None:
    with pytest.raises(InvalidRequest, match="no trainable parameter"):
        engine_of(nn.Linear(6, 2).requires_grad_(False))()
    with pytest.raises(InvalidRequest, match=r"torch\.nn\.Module"):
        Engine(object())  # type: ignore[arg-type]


def test_a_compiled_model_is_refused_clearly() -> None:
    with pytest.raises(InvalidRequest, match=r"torch\.compile"):
        Engine(torch.compile(nn.Linear(6, 2), backend="eager"))
