"""Pictures: read, find, cover, write, check."""

from sfumato.redaction.images.redact import redact_image_file, redact_pixels

__all__ = ["redact_image_file", "redact_pixels"]
