"""Sfumato: use the picture, not the person."""
