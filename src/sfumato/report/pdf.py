"""The page as PDF: by WeasyPrint, an extra. Nothing is fetched while it draws."""

from __future__ import annotations

from typing import Any

from PIL import ImageFile

from sfumato.core.errors import InvalidRequest, MissingExtra, SfumatoError


def to_pdf(page: str) -> bytes:
    """Return a page as PDF, with its title, language and bookmarks.

    Raises:
        MissingExtra: WeasyPrint is not installed. InvalidRequest: Pango is not.
    """
    truncated = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        import weasyprint
    except ImportError as error:
        raise MissingExtra("a report as PDF", ["weasyprint"], "report") from error
    except OSError as error:  # its C libraries are loaded at import
        raise InvalidRequest(
            f"a report as PDF needs the library Pango ({error!s:.120}). On Debian: apt-get install "
            "libpango-1.0-0 libpangoft2-1.0-0; on macOS: brew install pango. Or print the page from "
            "a browser."
        ) from error
    finally:
        # It tells Pillow to read cut pictures as if they were whole, for everybody in this process.
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated

    def refuse(url: str, *args: Any, **options: Any) -> Any:
        raise SfumatoError(f"the report tried to fetch {url[:80]}, which it must not")

    drawn: bytes = weasyprint.HTML(string=page, url_fetcher=refuse, media_type="print").write_pdf(
        pdf_tags=True, custom_metadata=False
    )
    return drawn
