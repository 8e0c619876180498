"""The demo: a real picture with planted metadata and a short video made from it, redacted end to end.

    python examples/demo.py FOLDER

Uses NASA's portrait of Eileen Collins, which scikit-image carries (public domain).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from skimage import data

HEIGHT, WIDTH = 360, 640


def picture(folder: Path) -> None:
    """Write the portrait as PNG and as a sideways JPEG, with a name and a place in their metadata."""
    image = Image.fromarray(data.astronaut())
    text = PngInfo()
    text.add_text("Author", "Jane Doe, 12 Example Street")
    image.save(folder / "portrait.png", pnginfo=text)
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe at home"
    exif[0x0112] = 6  # the camera was turned: show it turned back
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "phone.jpg", quality=92, exif=exif)


def video(path: Path, frames: int = 90) -> None:
    """Write a clip in which the portrait grows, turns and leaves the picture."""
    portrait = Image.fromarray(data.astronaut())
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for index in range(frames):
            part = index / frames
            side = int(260 + 160 * np.sin(np.pi * part))
            canvas = Image.new("RGB", (WIDTH, HEIGHT), (70, 84, 96))
            tilted = portrait.resize((side, side)).rotate(8 * np.sin(6 * part), Image.Resampling.BILINEAR)
            canvas.paste(tilted, (int(-60 + 760 * part**1.5), int(-20 + 40 * np.cos(9 * part))))
            frame = av.VideoFrame.from_ndarray(np.asarray(canvas), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def run(*arguments: str, cwd: Path) -> None:
    """Run `sfumato` as a user would, showing the command."""
    print(f"\n$ sfumato {' '.join(arguments)}", flush=True)
    program = Path(sys.executable).absolute().with_name("sfumato")
    subprocess.run([str(program), *arguments], cwd=cwd, check=True)


def main() -> None:
    """Make the inputs, redact them, verify the receipt."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    if folder.exists():
        shutil.rmtree(folder)
    (folder / "in").mkdir(parents=True)
    picture(folder / "in")
    video(folder / "in" / "walk.mp4")
    run("init", "--new-ledger", cwd=folder)
    run("redact", "in", "-o", "safe", "--hide", "face", cwd=folder)
    run("receipt", "verify", "safe/receipt.json", "safe", "--ledger", cwd=folder)
    run("ledger", "show", cwd=folder)
    print(f"\nLook at {folder}/safe/report.html, {folder}/safe/portrait.png and {folder}/safe/walk.mp4")


if __name__ == "__main__":
    main()
