"""The scattering transform: wavelets and moduli, fixed constants that no data has shaped.

Mallat, "Group invariant scattering" (2012). The filters are those of Kymatio 0.3 (Andreux et al., 2020), with
which the tests compare; `kymatio.torch` itself does not import beside SciPy 1.17.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato.core.errors import InvalidRequest


class Scattering(nn.Module):
    """Pictures to scattering coefficients: (images, channels, side, side) to (images, channels*paths, s, s).

    >>> Scattering(28)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 81, 7, 7])

    Args:
        side: of the pictures, in pixels; at least 2^scales.
        scales: octaves; the output's side is side / 2^scales, rounded down.
        angles: of wavelets, per octave.
    """

    def __init__(self, side: int, scales: int = 2, angles: int = 8) -> None:
        super().__init__()
        if not 1 <= scales <= 6 or 2**scales >= side:
            raise InvalidRequest(
                f"scattering over {scales} octaves needs 1..6 octaves and pictures larger than {2**scales} "
                f"pixels a side, got {side}"
            )
        if angles < 1:
            raise InvalidRequest(f"angles must be at least 1, got {angles}")
        self.side, self.scales, self.angles = side, scales, angles
        step = 2**scales
        self.padded = ((side + step) // step + 1) * step
        for j in range(scales):
            waves = torch.stack([_morlet(self.padded, j, t, angles) for t in range(angles)])
            for level in range(min(j, scales - 1) + 1):
                self.register_buffer(f"psi_{j}_{level}", _cropped(waves, level).float(), persistent=False)
            self.register_buffer(f"phi_{j}", self._lowpass(j), persistent=False)

    @property
    def paths(self) -> int:
        """How many coefficients there are per place and channel."""
        pairs = self.scales * (self.scales - 1) // 2
        return 1 + self.scales * self.angles + pairs * self.angles**2

    def forward(self, x: Tensor) -> Tensor:
        """Transform (images, channels, side, side) float32."""
        images, channels = x.shape[:2]
        if x.shape[2:] != (self.side, self.side):
            raise InvalidRequest(f"pictures must be {self.side} pixels a side, got {tuple(x.shape[2:])}")
        x = self._pad(x.reshape(images * channels, 1, self.side, self.side))
        spectrum = torch.fft.fft2(x)
        first, second = [self._smooth(x, 0)], []
        for j1 in range(self.scales):
            waves: Tensor = getattr(self, f"psi_{j1}_0")
            one = _modulus(torch.fft.ifft2(_folded(spectrum * waves, j1)))
            first.append(self._smooth(one, j1))
            if j1 + 1 < self.scales:
                again = torch.fft.fft2(one)
                pairs = [self._second(again, j1, j2) for j2 in range(j1 + 1, self.scales)]
                second.append(torch.cat(pairs, 2).flatten(1, 2))
        out = torch.cat([*first, *second], 1)
        return out.reshape(images, channels * self.paths, *out.shape[2:])

    def _second(self, spectra: Tensor, j1: int, j2: int) -> Tensor:
        """Return the paths through a wavelet of scale j1 and then one of j2."""
        waves: Tensor = getattr(self, f"psi_{j2}_{j1}")
        two = _modulus(torch.fft.ifft2(_folded(spectra.unsqueeze(2) * waves, j2 - j1)))
        return self._smooth(two, j2)

    def _smooth(self, x: Tensor, j: int) -> Tensor:
        """Average by the low-pass, at every 2^scales pixels of the picture: it is separable."""
        low: Tensor = getattr(self, f"phi_{j}")
        return low @ x @ low.T

    def _pad(self, x: Tensor) -> Tensor:
        before, after = (self.padded - self.side) // 2, (self.padded - self.side + 1) // 2
        return functional.pad(x, (before, after, before, after), mode="reflect")

    def _lowpass(self, j: int) -> Tensor:
        """Return the rows that average a map of resolution 2^-j at the places of the output."""
        at = torch.arange(self.padded, dtype=torch.float64)
        sigma = 0.8 * 2 ** (self.scales - 1)
        bell = sum(torch.exp(-((at + shift * self.padded) ** 2) / (2 * sigma**2)) for shift in range(-2, 3))
        assert isinstance(bell, Tensor)
        spectrum = torch.fft.fft(bell / math.sqrt(2 * PI * sigma**2)).real
        kernel = torch.fft.ifft(_fold(_kept(spectrum, j, 0), j, 0)).real
        step = 2 ** (self.scales - j)
        places = torch.arange(1, self.padded // 2**self.scales - 1) * step
        rows: Tensor = kernel[(places[:, None] - torch.arange(len(kernel))) % len(kernel)]
        return rows.float()


#: As Kymatio has it, so that the filters are the same to the last digit.
PI = 3.1415


def _morlet(side: int, scale: int, turn: int, angles: int) -> Tensor:
    """Return the spectrum of one Morlet wavelet: a wave under an oval bell, less what is left of its mean."""
    sigma, frequency, slant = 0.8 * 2**scale, 0.75 * math.pi / 2**scale, 4.0 / angles
    theta = (angles - angles // 2 - 1 - turn) * math.pi / angles
    bell = torch.zeros(side, side, dtype=torch.complex128)
    wave = torch.zeros_like(bell)
    cos, sin = math.cos(theta), math.sin(theta)
    for down in range(-2, 3):
        for right in range(-2, 3):
            y = torch.arange(side, dtype=torch.float64).reshape(-1, 1) + down * side
            x = torch.arange(side, dtype=torch.float64).reshape(1, -1) + right * side
            along, across = y * cos + x * sin, x * cos - y * sin
            envelope = torch.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
            bell += envelope
            wave += envelope * torch.exp(1j * frequency * along)
    wave -= wave.sum() / bell.sum() * bell
    spectrum: Tensor = torch.fft.fft2(wave / (2 * PI * sigma**2 / slant)).real
    return spectrum


def _kept(spectrum: Tensor, level: int, dim: int) -> Tensor:
    """Clear the frequencies that a map of resolution 2^-level cannot hold."""
    if level == 0:
        return spectrum
    size = spectrum.shape[dim]
    start = int(size * 2.0 ** (-level - 1))
    out = spectrum.clone()
    out.narrow(dim, start, int(size * (1 - 2.0**-level))).zero_()
    return out


def _cropped(spectra: Tensor, level: int) -> Tensor:
    """Return filters for maps of resolution 2^-level."""
    return _fold(_fold(_kept(_kept(spectra, level, -2), level, -1), level, -2), level, -1)


def _fold(spectrum: Tensor, level: int, dim: int) -> Tensor:
    """Add the parts of a spectrum that fall on each other where only each 2^level-th sample stays."""
    dim %= spectrum.ndim
    shape = (*spectrum.shape[:dim], 2**level, spectrum.shape[dim] // 2**level, *spectrum.shape[dim + 1 :])
    return spectrum.reshape(shape).sum(dim)


def _folded(spectra: Tensor, level: int) -> Tensor:
    """Return the spectra of maps of which each 2^level-th sample is kept, both ways."""
    for _ in range(level):
        down, right = spectra.shape[-2] // 2, spectra.shape[-1] // 2
        top, bottom = spectra[..., :down, :], spectra[..., down:, :]
        spectra = (top[..., :right] + top[..., right:] + bottom[..., :right] + bottom[..., right:]) / 4
    return spectra


def _modulus(x: Tensor) -> Tensor:
    """Return |x|; `Tensor.abs` guards against overflow, at five times the cost."""
    squared: Tensor = (x.real * x.real).addcmul_(x.imag, x.imag)
    return squared.sqrt_()
