"""Detectors trained with a guarantee for every picture, person or patient."""
