"""False and missed alarms of the collapse verdict, on nets trained on toy cars or photographs.

    python tests/benchmarks/bench_collapse.py [--epochs 10] [--seeds 1]
    python tests/benchmarks/bench_collapse.py --photos FOLDER [--pretrained mobilenetv2_100=2e-3]

The second form takes photographs, of at least 12 classes, and nets with their weights, too. Each
net is trained whole on even classes, long tails and uneven pairs, at learning rates that suit it
and at some that kill it, with the verdict off; then the verdict is asked after every epoch. An
alarm on a net that learns in the end is false; none on one that never does, at a killing rate, is
missed. Nets that learn nothing though their rate suits them count as slow.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import product
from pathlib import Path

from carray.data.preparation.prepare import prepare
from carray.data.synthetic import render_toycars
from carray.metrics import VAL_SKILL
from carray.records import TrialRecord
from carray.training.stopping import find_collapse
from carray.training.train import train

NETS = {"test_resnet": 3e-3, "test_vit": 1e-3}  # and a rate that suits each
KILLING = (100, 1000)  # times that
LEARNED, DEAD = 0.1, 0.02  # the best val/skill of a net that learned, at least; of a dead one
IMAGES = 50  # of each of the 12 models
MOST = 300  # of the most frequent one of the longest tail, which has three of the rarest
SHARES = {  # images of each model, and the class that it is put into
    "even": [(IMAGES, model) for model in range(12)],
    "tail 100:1": [(round(MOST * 100 ** (-model / 11)), model) for model in range(12)],
    "tail 10:1": [(round(IMAGES * 10 ** (-model / 11)), model) for model in range(12)],
    "pair 50:50": [(IMAGES, model % 2) for model in range(12)],
    "pair 95:5": [(IMAGES, 0)] * 11 + [(29, 1)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sets", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--photos", type=Path, help="A folder of class folders; default: toy cars.")
    parser.add_argument("--pretrained", nargs="+", default=[], metavar="NET=LR")
    asked = parser.parse_args()
    weighted = {net: float(lr) for net, _, lr in (text.partition("=") for text in asked.pretrained)}
    NETS.update(weighted)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # by outcome: alarms, nets
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cars = asked.photos or render_toycars(folder / "cars", images_per_class=MOST)
        for number, which in enumerate(asked.sets):
            data = cut(cars, which, folder / str(number))
            runs = folder / f"runs{number}"
            for record in trained(data, asked.epochs, asked.seeds, weighted, runs):
                outcome, at = outcome_of(record), alarm_of(record)
                counts[outcome][0] += at > 0
                counts[outcome][1] += 1
                lr = record.config.optimizer.lr
                print(f"{which:<12}{record.config.backbone:<14}lr {lr:<8.2g}{outcome:<10}"
                      + (f"alarm at {at}" if at else ""), flush=True)  # fmt: skip
    for outcome, (alarms, nets) in sorted(counts.items()):
        print(f"{outcome:<10}{alarms} alarms on {nets} nets")


def cut(cars: Path, which: str, folder: Path) -> Path:
    """Link as many images of each model as `which` has, below its classes; return the data."""
    models = sorted(each for each in cars.iterdir() if each.is_dir())[:12]
    for model, (count, label) in zip(models, SHARES[which], strict=True):
        target = folder / "cars" / f"class {label}"
        target.mkdir(parents=True, exist_ok=True)
        images = sorted(model.iterdir())[:count]
        if len(images) < count:
            raise SystemExit(
                f"{which} needs {count} images, {model} has {len(images)}: leave it out"
            )
        for image in images:
            (target / f"{model.name} {image.name}").symlink_to(image.resolve())
    prepare(
        folder / "cars",
        folder / "data",
        val_size=0.3,
        blend_size=0,
        test_size=0,
        near_duplicates="off",
    )
    return folder / "data"


def trained(
    data: Path, epochs: int, seeds: int, weighted: Collection[str], runs: Path
) -> Iterator[TrialRecord]:
    """Train every net at every rate, with the verdict off; those of `weighted` pretrained."""
    fixed = {"epochs": epochs, "stop_collapsed": False}
    for (net, lr), factor, seed in product(NETS.items(), (1, *KILLING), range(seeds)):
        drawn = {"backbone": net, "optimizer.lr": lr * factor, "seed": seed}
        drawn |= {"pretrained": net in weighted, "image_size": 64 if net in weighted else 32}
        yield train(data, {**fixed, **drawn}, runs=runs)


def outcome_of(record: TrialRecord) -> str:
    """Say what became of a net: learned, dead, or slow; failed where its loss was no number."""
    if not record.epochs or record.state == "failed":
        return "failed"
    skill = max(row[VAL_SKILL] for row in record.epochs)
    killed = record.config.optimizer.lr > 10 * NETS[record.config.backbone]
    return "learned" if skill > LEARNED else "dead" if killed and skill <= DEAD else "slow"


def alarm_of(record: TrialRecord) -> int:
    """Return the first epoch after which the verdict says collapsed; 0 where it never does."""
    for epoch in range(1, len(record.epochs) + 1):
        if find_collapse(record.epochs[:epoch], record.config):
            return epoch
    return 0


if __name__ == "__main__":
    main()
