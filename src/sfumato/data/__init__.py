"""Datasets: immutable versions, readers, minimisation, and the stores that hold their bytes."""
