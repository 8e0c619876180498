"""Boxes, masks, tracks, models and detectors: what is in a picture, and where."""
