"""What a track may say of itself: its language and a few marks, no names."""

from __future__ import annotations

import re
from typing import Any

#: Marks of a track that players choose by; all others are left out.
MARKS = 0x1 | 0x2 | 0x4 | 0x40 | 0x80 | 0x100  # default, dub, original, forced, hearing, visual impaired
#: A code of ISO 639-2, such as "deu".
LANGUAGE = re.compile(r"[a-z]{3}")
#: QuickTime knows languages by their English names' codes.
_BIBLIOGRAPHIC = {
    "deu": "ger", "fra": "fre", "nld": "dut", "zho": "chi", "ces": "cze", "ell": "gre", "fas": "per",
    "isl": "ice", "ron": "rum", "slk": "slo", "sqi": "alb", "hye": "arm", "eus": "baq", "kat": "geo",
    "mkd": "mac", "msa": "may", "mya": "bur", "bod": "tib", "cym": "wel", "mri": "mao",
}  # fmt: skip


def label(out: Any, stream: Any, muxer: str) -> None:
    """Give a track of the output its source's language and marks."""
    language = str(stream.metadata.get("language", "")).lower()
    if LANGUAGE.fullmatch(language) and language != "und":
        out.metadata["language"] = _BIBLIOGRAPHIC.get(language, language) if muxer == "mov" else language
    out.disposition = stream.disposition.value & MARKS
