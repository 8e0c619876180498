"""QR and EAN-13 codes pasted into photographs, turned, tilted, paled and blurred; always the same ones."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

#: EAN-13 (GS1): which of the first six digits take their even form, by the leading digit.
PARITY = ("OOOOOO", "OOEOEE", "OOEEOE", "OOEEEO", "OEOOEE", "OEEOOE", "OEEEOO", "OEOEOE", "OEOEEO", "OEEOEO")
ODD = (
    "0001101",
    "0011001",
    "0010011",
    "0111101",
    "0100011",
    "0110001",
    "0101111",
    "0111011",
    "0110111",
    "0001011",
)


def ean13(digits: str) -> np.ndarray:
    """Return the bars of twelve digits and their check digit, one pixel a module, with the quiet zones."""
    check = -sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits)) % 10
    right = [ODD[int(digit)].translate(str.maketrans("01", "10")) for digit in digits[7:] + str(check)]
    left = [
        ODD[int(digit)] if form == "O" else ODD[int(digit)].translate(str.maketrans("01", "10"))[::-1]
        for digit, form in zip(digits[1:7], PARITY[int(digits[0])], strict=True)
    ]
    bits = "101" + "".join(left) + "01010" + "".join(right) + "101"
    bars = np.array([255 * (bit == "0") for bit in "0" * 11 + bits + "0" * 7], np.uint8)
    bars[:11] = bars[-7:] = 255
    return np.repeat(bars[None], 60, axis=0)


def qr(text: str) -> np.ndarray:
    """Return a QR code, one pixel a module, with its quiet zone."""
    code = cv2.QRCodeEncoder.create().encode(text)
    return np.pad(code, 4, constant_values=255) if code[0, 0] == 0 else np.pad(code, 2, constant_values=255)


def placed(backgrounds: list[np.ndarray], count: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (class, picture, corners without the quiet zone): one code in each picture; RGB."""
    drawn = np.random.default_rng(2024)
    for number in range(count):
        label = "barcode" if number % 2 else "qr code"
        text = "".join(drawn.choice(list("0123456789"), 12))
        code = ean13(text) if number % 2 else qr(f"https://example.org/{text}")
        side = float(drawn.uniform(140, 360) if number % 2 else drawn.uniform(80, 300))
        height, width = side * code.shape[0] / code.shape[1], side
        picture = backgrounds[number % len(backgrounds)].copy()
        angle = np.deg2rad(drawn.uniform(-25, 25))
        flat = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - [width / 2, height / 2]
        flat *= 1 + drawn.uniform(-0.06, 0.06, (4, 2))  # tilted
        turned = flat @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        room = np.abs(turned).max(axis=0) + 2
        middle = drawn.uniform(room, np.maximum(np.array(picture.shape[1::-1]) - room, room + 1))
        corners = (turned + middle).astype(np.float32)
        quiet = (11, 0, 7, 0) if number % 2 else (4, 4, 4, 4)
        yield label, _pasted(picture, code, corners, drawn), _inner(code.shape, quiet, corners)


def _inner(shape: tuple[int, ...], quiet: tuple[int, int, int, int], corners: np.ndarray) -> np.ndarray:
    """Return where the corners of the code itself lie; `quiet` modules are left, above, right, below."""
    height, width = shape
    left, top, right, bottom = quiet[0], quiet[1], width - quiet[2], height - quiet[3]
    outer = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    inner = np.array([[[left, top], [right, top], [right, bottom], [left, bottom]]], np.float32)
    return cv2.perspectiveTransform(inner, cv2.getPerspectiveTransform(outer, corners))[0]


def _pasted(
    picture: np.ndarray, code: np.ndarray, corners: np.ndarray, drawn: np.random.Generator
) -> np.ndarray:
    large = cv2.resize(code, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)
    height, width = large.shape
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, corners)
    size = picture.shape[1::-1]
    ink = cv2.warpPerspective(cv2.GaussianBlur(large, (0, 0), 2), matrix, size, flags=cv2.INTER_AREA)
    mask = cv2.warpPerspective(np.full_like(large, 255), matrix, size, flags=cv2.INTER_LINEAR)
    low, high = drawn.uniform(0, 60), drawn.uniform(170, 255)
    ink = cv2.GaussianBlur(low + ink.astype(np.float32) * (high - low) / 255, (0, 0), drawn.uniform(0.3, 1.3))
    share = (mask.astype(np.float32) / 255)[:, :, None]
    return np.rint(picture * (1 - share) + ink[:, :, None] * share).clip(0, 255).astype(np.uint8)


def reads(picture: np.ndarray, label: str) -> bool:
    """Return whether OpenCV's decoders get a code's content out of a picture, at any of four sizes."""
    grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    for scale in (0.5, 1.0, 1.5, 2.0):
        seen = cv2.resize(
            grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        )
        if label == "barcode":
            found = cv2.barcode.BarcodeDetector().detectAndDecodeMulti(seen)[1]
            if any(found or ()):
                return True
            continue
        for detector in (cv2.QRCodeDetectorAruco(), cv2.QRCodeDetector()):
            try:
                found = detector.detectAndDecodeMulti(seen)[1]
            except cv2.error:
                continue
            if any(found or ()):
                return True
    return False
