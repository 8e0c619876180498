"""Redaction: find, follow, cover, write."""
