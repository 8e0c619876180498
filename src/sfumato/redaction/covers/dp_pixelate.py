"""Dp-pixelate: a mosaic of noisy sums, one grid per track; proven for m pixels, and charged.

After Fan, "Image Pixelization with Differential Privacy" (DBSec 2018), with whole numbers in place of means:
the proof is in docs/guarantees/redaction.md, the arithmetic in redaction/grids.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.core.numbers import LIMIT, Amount, rational, text
from sfumato.redaction.covers import Cover, Form, form_of

if TYPE_CHECKING:
    from sfumato.core.gate import Permit
    from sfumato.mechanisms.laplace import Noise

SUMMARY = "noisy: a mosaic with Laplace noise, one grid per track; proven for m pixels, charged to a budget"
NEEDS = ("opendp",)
EXTRA = "dp"
SECURE = False

#: Changed pixels that are protected together, where neither the policy nor the caller says.
PIXELS = 16


def build(
    *, epsilon: Amount = 1, pixels: int = 0, grid: int = 8, population: str = "", share: str = ""
) -> DpPixelate:
    """Build the cover.

    Args:
        epsilon: the privacy loss of a whole run, above 0; exact.
        pixels: the neighbouring relation: inputs differ in at most so many pixels inside the regions. 0: as
            the unit of the population says, else 16.
        grid: cells along a region's longer side, at most, 1..64; small regions get fewer.
        population, share: whose budget pays; empty: the only one that fits.

    Raises:
        InvalidRequest: a value outside its range.
    """
    exact = rational(epsilon, name="epsilon")
    if exact <= 0:
        raise InvalidRequest(f"epsilon must be above 0, got {epsilon!r}")
    if isinstance(pixels, bool) or not isinstance(pixels, int) or not 0 <= pixels <= 10**6:
        raise InvalidRequest(f"pixels must be a whole number of 1..1000000, got {pixels!r}")
    if isinstance(grid, bool) or not isinstance(grid, int) or not 1 <= grid <= 64:
        raise InvalidRequest(f"grid must be a whole number of 1..64 (cells per longer side), got {grid!r}")
    for name, value in (("population", population), ("share", share)):
        if not isinstance(value, str) or re.search(r"[/#\x00-\x1f]", value):
            raise InvalidRequest(f"{name} must be a name out of the policy, got {value!r}")
    if pixels and exact / pixels < 1 / LIMIT:
        raise InvalidRequest(
            f"epsilon {epsilon!r} for {pixels} pixels is noise and nothing else: ask for more"
        )
    return DpPixelate(exact, pixels, grid, population, share)


@dataclass(frozen=True, slots=True, eq=False)
class DpPixelate:
    """Grids of sums of levels with discrete Laplace noise, painted as a mosaic.

    Args:
        epsilon, pixels, grid, population, share: as in `build`.
        noise: where noise comes from; None: nowhere yet, and nothing can be covered.
    """

    epsilon: Fraction
    pixels: int
    grid: int
    population: str = ""
    share: str = ""
    noise: Noise | None = None

    name: ClassVar[str] = "dp-pixelate"
    secure: ClassVar[bool] = SECURE

    @property
    def options(self) -> Mapping[str, Any]:
        """The settings, as a receipt shows them."""
        return {
            "epsilon": text(self.epsilon),
            "pixels": self.pixels,
            "grid": self.grid,
            "population": self.population,
            "share": self.share,
        }

    def charged(self, permit: Permit, noise: Noise | None = None) -> DpPixelate:
        """Return the cover that draws its noise through a permit.

        Args:
            noise: shared with other covers of the same release.
        """
        from sfumato.mechanisms.laplace import Noise

        return replace(self, pixels=self.pixels or PIXELS, noise=noise or Noise(permit))

    def scale(self, channels: int, index: int) -> Fraction:
        """Return the scale of the noise on sums of one channel, in levels of 0..255.

        A colour picture spends half of epsilon on brightness, and a quarter on each of Cb and Cr.

        Args:
            channels: 1 (brightness alone) or 3.
            index: of the channel: 0 for brightness.
        """
        part = Fraction(1) if channels == 1 else Fraction(1, 2 if index == 0 else 4)
        return 255 * (self.pixels or PIXELS) / (self.epsilon * part)

    def suited(self, form: Form) -> Cover:
        """Refuse: a plane by itself, or one frame of many, would get noise of its own.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest(
            f"dp-pixelate takes one grid per track, and not one for a plane of {form.channels}: hide by "
            "redact, Redactor or redact_files"
        )

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        """Hide `regions` in one grey, RGB or RGBA picture, in place; each has a grid of its own.

        Raises:
            InvalidRequest: no permit gives noise.
        """
        from sfumato.redaction.grids import Painter, looks_in_picture

        form, boxes = form_of(pixels), np.asarray(regions, np.int32).reshape(-1, 4)
        Painter(looks_in_picture(self, pixels, form, boxes), boxes, form=form).apply(pixels, boxes)
