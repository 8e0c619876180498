"""Videos: scan, follow, cover, write, check."""

from sfumato.redaction.videos.redact import redact_video_file

__all__ = ["redact_video_file"]
