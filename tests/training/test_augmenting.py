"""Augmentations that mix images are refused, and those that do not pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from sfumato.core.errors import InvalidRequest  # noqa: E402
from sfumato.training.augmenting import check_augment  # noqa: E402

LIKE = torch.zeros(2, 3, 8, 8)
Augment = Callable[[torch.Tensor], torch.Tensor]


def mixup(x: torch.Tensor) -> torch.Tensor:
    return 0.7 * x + 0.3 * x[torch.randperm(len(x))]


def cutmix(x: torch.Tensor) -> torch.Tensor:
    x[:, :, :4] = x.roll(1, 0)[:, :, :4]
    return x


@pytest.mark.parametrize(
    "wrong",
    [mixup, cutmix, lambda x: x - x.mean(), lambda x: x / x.abs().max(), lambda x: x.flip(0)],
)
@pytest.mark.parametrize("like", [LIKE, LIKE.double()])
def test_what_mixes_images_is_refused(wrong: Augment, like: torch.Tensor) -> None:
    with pytest.raises(InvalidRequest, match="mixes images"):
        check_augment(wrong, like)


@pytest.mark.parametrize(
    "right",
    [
        lambda x: x,
        lambda x: x.flip(-1),
        lambda x: torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x),
        lambda x: x + torch.randn_like(x),
        lambda x: x / x.flatten(1).norm(dim=1).clamp_min(1e-3)[:, None, None, None],
    ],
)
def test_what_keeps_images_apart_passes_and_leaves_the_generator(right: Augment) -> None:
    state = torch.get_rng_state()
    check_augment(right, LIKE)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_tried_passes() -> None:
    drawn = iter(range(1000))
    check_augment(lambda x: x + next(drawn), LIKE)
    check_augment(mixup, [1, 2])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [(lambda x: torch.cat([x, x]), "views"), (lambda x: x[1:], "views"), (lambda x: 3, "tensor")],
)
def test_another_number_of_images_is_refused(wrong: Augment, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_augment(wrong, LIKE)
