"""Private training against the same training without privacy, and against Opacus and vmap, in the same run.

Models, with the pictures they were made for: the CNN for MNIST (batch 256), WRN-16-4 and ResNet-18 with group
norm (32x32, batch 64), ViT-Ti/16 (224x224, batch 16). Each way takes whole steps: forward, clipped gradients
(C = 1), noise, SGD; the ways take turns, on two threads, and medians are compared. Ours draws its noise
through a permit, from a cipher; the peers draw theirs from torch's own generator. Peak memory is the rise of
the resident set over two steps of a process of its own, the choice of kernels included.

All ways are timed in a process that keeps freed memory, as `sfumato train` does (training/memory.py): plain
training is quicker in it too. Its peak of memory is taken without that, ours with it.

The floor of a private step is 1.00 plus passes over memory: forward, the input's gradient and the weight's
gradient cost about the same each; a per-image gradient that is kept costs the weight gradient that it
replaces, and one more pass over it for its length and for the sum; where only lengths are taken, they come on
top. A second backward, or a weight gradient that is thrown away, costs 4/3 at least.

The engine has a max pooling of its own, which is faster than PyTorch's. The CNN for MNIST pools, so its ratio
is also given to a plain step that pools in the same way: that is what privacy alone costs there.

fastDP (awslabs, 2.0.0, 3d5cc56) is not on the package index: its figures here are constants, measured once on
another day and machine with its code (ratios, times and memory), and are printed as such.

Where we are: benchmarks/README.md.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from _bench import alternate, medians, report

THREADS = 2

#: name -> (catalogue name, settings, batch, channels)
NETS: dict[str, tuple[str, dict[str, int], int]] = {
    "mnist_cnn": ("mnist-cnn", {"channels": 1, "size": 28}, 256),
    "wrn_16_4": ("wrn-16-4", {"channels": 3, "size": 32}, 64),
    "resnet18": ("resnet18-gn", {"channels": 3, "size": 32}, 64),
    "vit_tiny": ("vit-tiny", {"channels": 3, "size": 224}, 16),
}

#: fastDP's ratios, measured once (two threads, the same batches): time and memory.
FASTDP = {
    "mnist_cnn": (2.14, 1.6),
    "wrn_16_4": (3.55, 2.5),
    "resnet18": (4.0, 2.4),
    "vit_tiny": (1.95, 1.7),
}

GOALS = {"mnist_cnn": (1.25, 1.4), "wrn_16_4": (1.20, 1.4), "resnet18": (1.20, 1.4), "vit_tiny": (1.15, 1.1)}

#: What names in the result begin with, after the model's; null where a way was not taken in this run.
PEERS = ("", "_opacus", "_opacus_ghost", "_vmap")

#: The ways that take every turn, and the model that pools.
SHORT, POOLS = ("plain", "pooled", "ours"), "mnist_cnn"

NOISE = 1.0

Step = Callable[[], object]


class Bench:
    """One model with a batch of made pictures, and the ways to train it."""

    def __init__(self, name: str) -> None:
        from sfumato.training.models import build

        kind, settings, self.batch = NETS[name]
        torch.manual_seed(0)
        self.model = build(kind, **settings)
        side = settings["size"]
        self.x = torch.randn(self.batch, settings["channels"], side, side)
        self.y = torch.randint(10, (self.batch,))

    def sgd(self) -> torch.optim.SGD:
        return torch.optim.SGD(self.model.parameters(), lr=1e-4)

    def plain(self) -> Step:
        """SGD without privacy."""
        optimizer = self.sgd()

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(self.model(self.x), self.y).backward()
            optimizer.step()

        return step

    def pooled(self) -> Step:
        """The same, with max pooling as our engine does it."""
        from sfumato.training.engine.tape import Faster

        step = self.plain()

        def faster() -> None:
            with Faster():
                step()

        return faster

    def ours(self) -> Step:
        """Our engine, with noise through a permit."""
        from sfumato.core.gate import Gate, Plan
        from sfumato.mechanisms.gaussian import GaussianNoise, grid_for
        from sfumato.training.engine import Clipping, Engine

        plan = Plan(action="train", mechanism="dp-sgd", guarantee="heuristic", statement="a benchmark")
        noise = GaussianNoise(Gate().open(plan), threads=torch.get_num_threads())  # as training/loop.py does
        engine = Engine(self.model, clipping=Clipping("flat", 1.0))
        optimizer = self.sgd()
        named = dict(self.model.named_parameters())
        grid = grid_for(1.0, sum(p.numel() for p in named.values()))

        def step() -> None:
            out = engine.gradients(lambda: F.cross_entropy(self.model(self.x), self.y, reduction="none"))
            arrays = [value.numpy() for value in out.sum.values()]
            noise.add_to(arrays, NOISE, grid)
            for name, value in out.sum.items():
                named[name].grad = value.div_(self.batch)
            optimizer.step()
            optimizer.zero_grad()

        return step

    def opacus(self) -> Step:
        """Opacus' hooks: per-image gradients of every layer."""
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer

        wrapped = GradSampleModule(self.model)
        optimizer = DPOptimizer(
            self.sgd(), noise_multiplier=NOISE, max_grad_norm=1.0, expected_batch_size=self.batch
        )

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(wrapped(self.x), self.y).backward()
            optimizer.step()

        return step

    def opacus_ghost(self) -> Step:
        """Opacus' ghost clipping: lengths first, and a second backward."""
        from opacus.grad_sample import GradSampleModuleFastGradientClipping
        from opacus.optimizers import DPOptimizerFastGradientClipping
        from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

        wrapped = GradSampleModuleFastGradientClipping(self.model, max_grad_norm=1.0, use_ghost_clipping=True)
        optimizer = DPOptimizerFastGradientClipping(
            self.sgd(), noise_multiplier=NOISE, max_grad_norm=1.0, expected_batch_size=self.batch
        )
        loss = DPLossFastGradientClipping(wrapped, optimizer, torch.nn.CrossEntropyLoss(reduction="mean"))

        def step() -> None:
            optimizer.zero_grad()
            loss(wrapped(self.x), self.y).backward()
            optimizer.step()

        return step

    def vmap(self) -> Step:
        """torch.func: the gradient of one image, mapped over the batch."""
        named = dict(self.model.named_parameters())
        optimizer = self.sgd()

        def loss(params: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            out = torch.func.functional_call(self.model, params, (x[None],))
            return F.cross_entropy(out, y[None])

        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

        def step() -> None:
            found = gradients({name: p.detach() for name, p in named.items()}, self.x, self.y)
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in found.values()]).norm(dim=0)
            factors = (1.0 / norms.clamp_min(1e-9)).clamp_max(1)
            for name, parameter in named.items():
                total = torch.einsum("b,b...->...", factors, found[name])
                parameter.grad = total.add_(torch.normal(0.0, NOISE, total.shape)).div_(self.batch)
            del found
            optimizer.step()
            optimizer.zero_grad()

        return step


def installed() -> list[str]:
    """Return the ways that can be taken here."""
    ways = ["plain", "ours", "vmap"]
    with contextlib.suppress(ImportError):
        import opacus  # noqa: F401

        ways[2:2] = ["opacus", "opacus_ghost"]
    if "opacus" not in ways:
        print("opacus is not installed (pip install opacus): its ratios are left out", file=sys.stderr)
    return ways


def peak_mb(name: str, way: str) -> float:
    """Return by how many MB two steps raise the resident set, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--peak", name, way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return float("nan")
    return float(done.stdout.splitlines()[-1])


def print_peak(name: str, way: str) -> None:
    """Print the rise; Linux alone tells it."""
    from sfumato.training.memory import kept_memory

    step = getattr(Bench(name), way)()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    step()
    with kept_memory() if way == "ours" else contextlib.nullcontext():
        step()
        print((status("VmHWM") - before) / 1024)


def status(key: str) -> int:
    """Return a value of this process in KB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def measure(name: str, ways: list[str], rounds: int, slow: int) -> dict[str, float]:
    """Return the ratios of times to plain training; peers take fewer turns."""
    from sfumato.training.memory import kept_memory

    steps = {way: getattr(Bench(name), way)() for way in ways}
    for way, step in steps.items():
        step()  # the first one chooses kernels
        if slow > 1 or way in SHORT:
            step()
    times: dict[str, list[float]] = {way: [] for way in ways}
    with kept_memory():
        for turn in range(rounds):
            now = {way: step for way, step in steps.items() if turn < slow or way in SHORT}
            for way, took in alternate(now, 1).items():
                times[way] += took
    middle = medians(times)
    # Neighbours in time, so that a machine that slows down slows both.
    pairs = [a / b for a, b in zip(times["ours"], times["plain"], strict=True)]
    out = {way: middle[way] / middle["plain"] for way in ways if way != "plain"}
    out["ours"] = statistics.median(pairs)
    out["plain_ms"] = 1000 * middle["plain"]
    return out


def main() -> None:
    """Measure, and print."""
    args = options()
    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    if args.peak:
        print_peak(*args.peak)
        return
    result: dict[str, object] = {}
    lines = [f"{'model':<11}{'way':<14}{'time':>7}{'memory':>8}   (ratios to training without privacy)"]
    ways = installed()
    if args.quick:
        ways = [way for way in ways if way in ("plain", "ours", "opacus")]
    for name in args.only or NETS:
        start = time.perf_counter()
        rounds, slow = (2, 1) if args.quick else (15, 5)
        # A short step needs more turns.
        taken = [*ways, "pooled"] if name == POOLS else ways
        found = measure(name, taken, rounds * (1 if args.quick else 5 if name == "mnist_cnn" else 1), slow)
        lines.append(f"{name:<11}plain {found['plain_ms']:.0f} ms a step")
        shown = [way for way in ways if way != "plain"]
        measured = ["plain", "ours"] if name == "mnist_cnn" else []
        if name == POOLS:
            same = found["ours"] / found["pooled"]
            result[f"{name}_same_pooling_time_ratio"] = same
            lines.append(f"{'':<11}{'ours, to plain with the same pooling':<38}{same:.2f}")
        peaks = {way: peak_mb(name, way) for way in (measured if args.quick else ways)}
        for way in PEERS:
            result |= {f"{name}{way}_time_ratio": None, f"{name}{way}_memory_ratio": None}
        for way in shown:
            prefix = name if way == "ours" else f"{name}_{way}"
            result[f"{prefix}_time_ratio"] = found[way]
            memory = ""
            if way in peaks:
                result[f"{prefix}_memory_ratio"] = peaks[way] / peaks["plain"]
                memory = f"{peaks[way] / peaks['plain']:8.2f}"
            lines.append(f"{'':<11}{way:<14}{found[way]:7.2f}{memory}")
        result[f"{name}_fastdp_time_ratio"], result[f"{name}_fastdp_memory_ratio"] = FASTDP[name]
        lines.append(f"{'':<11}{'fastDP':<14}{FASTDP[name][0]:7.2f}{FASTDP[name][1]:8.2f}   (constants)")
        lines.append(f"{'':<11}{'goal':<14}{GOALS[name][0]:7.2f}{GOALS[name][1]:8.2f}")
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if args.quick:
        lines.append("quick: few turns; memory for the smallest model alone")
    report(result, lines, args.json)


def options() -> Any:
    """Read the command line."""
    import argparse

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns and peers: under two minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object with the ratios")
    parser.add_argument("--only", nargs="*", choices=list(NETS), help="these models alone")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
