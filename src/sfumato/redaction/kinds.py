"""What a file is, told by its content: extensions lie."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sfumato.core.errors import UnreadableMedia

#: Formats of pictures that are read and written, with the extensions that name them honestly.
EXTENSIONS = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "png": (".png", ".apng"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "bmp": (".bmp", ".dib"),
    "gif": (".gif",),
    "heic": (".heic", ".heif", ".hif"),
    "avif": (".avif", ".avifs"),
}

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0\x08\0", "tiff"),
    (b"MM\0+\0\x08", "tiff"),
    # Pictures that are known but not handled: named, so that a batch can say so.
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "icon"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"IIRO", "camera raw"),
    (b"IIU\0", "camera raw"),
)

_VIDEO = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\0\0\x01\xba",  # MPEG program stream
    b"\0\0\x01\xb3",  # MPEG video
    b"\0\0\0\x01\x67",  # H.264
    b"\0\0\0\x01\x40\x01",  # HEVC
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"OggS",
    b"DKIF",  # IVF
    b"YUV4MPEG2",
    b".RMF",
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01",  # MXF
)

_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_AVIF = (b"avif", b"avis")
_SOUND = (b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ")
_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def sniff(path: Path) -> Literal["image", "video"] | None:
    """Return whether a file is a picture or a video, by its content; None: neither.

    A picture in a format that is not handled is still "image": redacting it says what is the matter.

    Raises:
        UnreadableMedia: the file cannot be opened.
    """
    head = head_of(path)
    if image_kind(head):
        return "image"
    return "video" if _is_video(head) else None


def head_of(path: Path, size: int = 1024) -> bytes:
    """Return the first bytes of a file.

    Raises:
        UnreadableMedia: not a regular file, or it cannot be opened.
    """
    if not path.is_file():  # a pipe or a device would block for ever
        raise UnreadableMedia(f"{path.name} is not a regular file that exists: give a picture or a video")
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise UnreadableMedia(
            f"{path.name} cannot be opened ({error.strerror}): check its permissions and its disk"
        ) from error


def image_kind(head: bytes) -> str | None:
    """Return the picture format that a file's first bytes say: a key of `EXTENSIONS`, or another's name."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return "camera raw" if kind == "tiff" and head[8:10] == b"CR" else kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:2] == b"BM" and len(head) > 18 and head[6:10] == bytes(4) and head[15:18] == bytes(3):
        return "bmp"
    if head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3].isspace():
        return "PNM"
    return _brand_kind(head)


def _brand_kind(head: bytes) -> str | None:
    """Return the kind of picture an ISO base media file says it is by its brands."""
    if head[4:8] != b"ftyp":
        return None
    size = int.from_bytes(head[:4], "big")
    major = head[8:12]
    brands = [major]
    if major in (b"mif1", b"msf1", b"miaf"):  # says "a picture", and the rest say how it is coded
        brands = [head[at : at + 4] for at in range(16, min(size, len(head)), 4)]
    if any(brand in _AVIF for brand in brands):
        return "avif"
    if any(brand in _HEIF for brand in brands) or major in (b"mif1", b"msf1"):
        return "heic"
    return "camera raw" if major == b"crx " else None


def _is_video(head: bytes) -> bool:
    if head[4:8] == b"ftyp":
        return head[8:12] not in _SOUND
    if head[4:8] in _ATOMS and not head.startswith(b"\0\0\0\0"):
        return True
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return True
    transport = any(
        len(head) > start + 2 * step and all(head[start + n * step] == 0x47 for n in range(3))
        for start, step in ((0, 188), (4, 192))
    )
    return transport or head.startswith(_VIDEO)
