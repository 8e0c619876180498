"""Clipped per-image gradients in one backward pass.

engine = Engine(model, clipping=Clipping("flat", 1.0))
out = engine.gradients(lambda: loss_of_each_image(model(images), labels))
out.sum["fc.weight"]     # the sum over images of factor * gradient; noise and the step are the caller's
"""

from sfumato.training.engine.clip import Clipped, Clipping
from sfumato.training.engine.engine import Engine

__all__ = ["Clipped", "Clipping", "Engine"]
