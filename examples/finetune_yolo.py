"""Fine-tune YOLO26 on private pictures, on a GPU: every picture, or every person, has a guarantee.

    python examples/finetune_yolo.py yolo26n.pt data.yaml --public-size 20000 --epsilon 8 --device cuda

Needs `pip install "sfumato[training,yolo,data]"`, and a project (`sfumato init`) whose sfumato.toml says who
pays:

    [populations.passers]
    unit = "image"        # or "person", with --units people.csv
    epsilon = 8
    delta = 1e-6

The weights must have been trained on public pictures (Ultralytics' own were, on COCO), and they are AGPL-3.0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sfumato.training.detect import Augment, DetectorTraining, train_detector
from sfumato.training.run import Progress
from sfumato.training.settings import TrainingSettings


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("detector", help="a .pt file that was trained on public pictures alone")
    parser.add_argument("data", type=Path, help="data.yaml; its train split is private")
    parser.add_argument("--out", type=Path, default=Path("private.pt"))
    parser.add_argument("--units", type=Path, help="CSV: picture, whose it is")
    parser.add_argument("--public", type=Path, help="data.yaml of PUBLIC pictures, for mosaics")
    parser.add_argument("--public-size", type=int, required=True, help="a public number of units, rounded")
    parser.add_argument("--epsilon", default="8")
    parser.add_argument("--expected-batch", default="512", help="large batches need less noise")
    parser.add_argument("--epochs", default="30")
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--physical-batch", type=int, default=64, help="pictures on the GPU at once")
    parser.add_argument("--freeze", default="backbone", help="nothing, backbone or neck")
    parser.add_argument("--lr", type=float, default=0.0005)
    parser.add_argument("--full-precision", action="store_true", help="no bfloat16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--resume", action="store_true", help="take up the run that was left, at no charge")
    return parser.parse_args()


def shown(progress: Progress) -> None:
    """Print how far the run is; nothing here was computed from the data."""
    if progress.step % 10 == 0 or progress.step == progress.steps:
        spent = f"epsilon {float(progress.epsilon):.2f} so far"
        print(f"step {progress.step} of {progress.steps}, {spent}, {progress.seconds:.0f} s", flush=True)


def main() -> None:
    """Train, and say what was promised."""
    given = arguments()
    asked = DetectorTraining(
        detector=given.detector,
        data=given.data,
        out=given.out,
        units=given.units,
        public=given.public,
        side=given.side,
        augment=Augment(mosaic=0.5 if given.public else 0.0),
        freeze=int(given.freeze) if given.freeze.isdigit() else given.freeze,
        optimiser="adamw",
        lr=given.lr,
        device=given.device,
        privacy=TrainingSettings(
            epsilon=given.epsilon,
            expected_batch=given.expected_batch,
            public_size=given.public_size,
            epochs=given.epochs,
            clip=given.clip,
            views=given.views,
            physical_batch=given.physical_batch,
            precision="float32" if given.full_precision else "bfloat16",
        ),
    )
    done = train_detector(asked, resume=given.resume, on_step=[shown])
    print(done.receipt.body["guarantee"]["statement"])
    print(f"Look at {done.weights}, {done.onnx} and {done.weights}.receipt.json")


if __name__ == "__main__":
    main()
