"""Noise with its bound attached, one file each; drawn only through a permit."""
