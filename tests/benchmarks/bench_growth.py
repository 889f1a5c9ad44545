"""Does anything grow? python tests/benchmarks/bench_growth.py memory | trials | images [--lanes 64]

`memory`: a lane's memory over trials of all kinds in one process, after the fifth and after more.
`trials`: studies of more and more trials that don't train (`standin.py`): time a trial and memory
of the driver, from the first trial's end to the last report; how long it was until every lane had
its first epoch; what Ray's processes of the study take half-way; then what the tracking took to
close. `CARRAY_STORAGE` and `MLFLOW_TRACKING_URI` are used.
`images`: prepare, pixel store, and an epoch of batches, of more and more images: processor time an
image, which other work on the machine doesn't touch, then all of the wall's, and memory.
"""

from __future__ import annotations

import argparse
import io
import resource
import tempfile
import time
from contextlib import suppress
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import optuna
import psutil
import torch
from standin import study

from carray.api import toy_data
from carray.config import AugmentConfig, build_config
from carray.data.manifest import Manifest
from carray.data.pixels.loader import Images, Loader, TrainPlan, train_rows
from carray.data.pixels.store import open_store
from carray.data.preparation.prepare import prepare
from carray.data.synthetic import render_toycars
from carray.lanes.memory_guard import own_bytes
from carray.metrics import VAL_LOG_LOSS
from carray.records import TrialRecord
from carray.search.observers.console import Board
from carray.search.placement.ray_cluster import connected
from carray.search.scheduling.schedulers import build_scheduler
from carray.search.scheduling.tune_run import run_search
from carray.training.epoch_order import EpochOrder
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner

MIB = 2**20
BACKBONES = ("test_resnet", "lcnet_035", "resnet10t", "mobilenetv2_035", "test_vit")
IMAGE_SIZES = (32, 64, 96, 160)
OPTIMIZERS = ("adamw", "sgd", "lamb")
LOOKS = (5, 25, 50, 75, 100)
EPOCHS = 3  # of a trial that doesn't train
EPOCH_SECONDS = 0.02
CLASSES = 20
SIDE = 96  # of the files
SIZE = 64  # of the pixel store


def memory(trials: int) -> None:
    """Run `trials` trials on one runner; print what the process holds after some of them."""
    runner = TrialRunner(SoloRanks(), torch.device("cpu"), 1)
    kinds = list(product(BACKBONES, IMAGE_SIZES, OPTIMIZERS))
    print("trials   own MiB   s a trial")
    with tempfile.TemporaryDirectory() as folder:
        data = toy_data(Path(folder), images_per_class=16)
        start, since = time.perf_counter(), 0
        for number in range(1, trials + 1):
            backbone, size, optimizer = kinds[number * 7 % len(kinds)]  # 7: no common divisor
            drawn = {
                "backbone": backbone,
                "image_size": 160 if backbone == "test_vit" else size,
                "optimizer.name": optimizer,
                "device_batch_size": 8 + 8 * (number % 4),
                "ema_decay": 0.9 * (number % 2),
            }
            config = build_config({**drawn, "pretrained": False, "epochs": 1})
            trial = Path(folder) / "trials" / str(number)
            order = EpochOrder(
                trial=trial.name, folder=str(trial), data=str(data), config=config, epoch=1
            )
            runner.run_epoch(order)
            runner.finish(order)
            runner.release()
            if number in LOOKS or number == trials:
                each = (time.perf_counter() - start) / (number - since)
                print(f"{number:6d} {own_bytes() / MIB:9.0f} {each:11.2f}", flush=True)
                start, since = time.perf_counter(), number


class Clocks(Board):
    """Notes when trials ended: by the wall, and by the driver's own processor time."""

    def __init__(self, trials: int) -> None:
        super().__init__(stream=io.StringIO())
        self.ends: list[tuple[float, float]] = []
        self.firsts: list[float] = []  # when trials had their first epochs
        self.ray_mib: list[float] = []  # of each of Ray's processes below, half-way
        self._half = trials // 2

    def epoch_ended(self, record: TrialRecord) -> None:
        if len(record.epochs) == 1:
            self.firsts.append(time.perf_counter())

    def trial_ended(self, record: TrialRecord, folder: object) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))
        if len(self.ends) == self._half:
            self.ray_mib = workers_mib()


def workers_mib() -> list[float]:
    """Return what each of Ray's workers on this machine holds alone."""
    held = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "".join(process.cmdline()).startswith("ray::"):
                memory = process.memory_info()
                held.append((memory.rss - memory.shared) / MIB)
    return held


def trials(counts: list[int], lanes: int, address: str) -> None:
    """Run a study of each number of trials, nothing but the driver at work."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(
        "trials   wall ms a trial   driver CPU ms   of the first, second and last busy tenth"
        "   own MiB   Ray's workers, their MiB   closing s   all lanes' first s"
    )
    # the tracking's own thread may outlast its patience, and this folder
    with connected(address), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        for count in counts:
            clocks, folder = Clocks(count), Path(name) / str(count)
            begun = time.perf_counter()
            with study(folder, count, EPOCHS, lanes, EPOCH_SECONDS, clocks) as (driver, _):
                scheduler = build_scheduler(
                    "asha", metric=VAL_LOG_LOSS, direction="minimize", max_epochs=EPOCHS
                )
                run_search(driver, scheduler, None, folder / "tune")
                closing = time.perf_counter()
            closed = time.perf_counter() - closing
            # of the last trials none opens another, as many as there are lanes
            tenth, ends = max(2, count // 10), clocks.ends[: max(2, count - lanes)]
            parts = (clocks.ends, ends[:tenth], ends[tenth : 2 * tenth], ends[-tenth:])
            told, first, second, last = map(_per_trial, parts)
            print(
                f"{count:6d} {told[0]:17.1f} {told[1]:15.1f} {first[1]:18.1f} "
                f"{second[1]:10.1f} {last[1]:15.1f} "
                f"{own_bytes() / MIB:9.0f} {len(clocks.ray_mib):15d} {sum(clocks.ray_mib):10.0f} "
                f"{closed:11.1f} {clocks.firsts[min(lanes, count) - 1] - begun:20.1f}",
                flush=True,
            )


def _per_trial(ends: list[tuple[float, float]]) -> tuple[float, float]:
    """Return wall ms and CPU ms a trial, from the first end to the last."""
    first, last, trials = ends[0], ends[-1], len(ends) - 1
    return 1000 * (last[0] - first[0]) / trials, 1000 * (last[1] - first[1]) / trials


def images(counts: list[int]) -> None:
    """Prepare, store and load more and more images; ms an image."""
    print("images   CPU ms: prepare   store    open   epoch   wall ms   own MiB   peak MiB")
    with tempfile.TemporaryDirectory() as name:
        cars = render_toycars(Path(name) / "cars", seed=0, images_per_class=80)
        read = (cv2.imread(str(path)) for path in sorted(cars.glob("*/*.jpg")))
        pictures = [picture for picture in read if picture is not None]
        for count in counts:
            folder = Path(name) / str(count)
            write_images(folder / "images", pictures, count)
            began, clock = time.perf_counter(), [time.process_time()]
            prepare(folder / "images", folder / "data")
            clock.append(time.process_time())
            open_store(Manifest.load(folder / "data"), SIZE, "squash")
            clock.append(time.process_time())
            manifest = Manifest.load(folder / "data")
            store = open_store(manifest, SIZE, "squash")
            clock.append(time.process_time())
            loaded = load_all(manifest, store.pixels)
            clock.append(time.process_time())
            wall = 1000 * (time.perf_counter() - began) / count
            spent = 1000 * np.diff(clock) / (count, count, count, loaded)
            print(
                f"{count:6d} {spent[0]:16.3f} {spent[1]:7.3f} {spent[2]:7.3f} {spent[3]:7.3f} "
                f"{wall:9.3f} {own_bytes() / MIB:9.0f} {peak_mib():10.0f}",
                flush=True,
            )


def peak_mib() -> float:
    """Return the most that the process ever held, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_images(folder: Path, pictures: list[np.ndarray], count: int) -> None:
    """Write `count` files: the same pictures again and again, each time cut and tinted anew."""
    numbers = np.random.default_rng(0)
    for kind in range(CLASSES):
        (folder / f"class {kind:02d}").mkdir(parents=True)
    for index in range(count):
        picture = pictures[index % len(pictures)]
        height, width = picture.shape[:2]
        side = int(min(height, width) * numbers.uniform(0.35, 0.9))
        top, left = numbers.integers(height - side), numbers.integers(width - side)
        cut = cv2.resize(picture[top : top + side, left : left + side], (SIDE, SIDE))
        tinted = np.clip(cut * numbers.uniform(0.6, 1.4, 3), 0, 255).astype(np.uint8)
        file = folder / f"class {index % CLASSES:02d}" / f"{index:06d}.jpg"
        cv2.imwrite(str(file), tinted[:, :: 1 if index % 2 else -1])


def load_all(manifest: Manifest, pixels: np.ndarray) -> int:
    """Make one epoch's augmented batches; return the number of images."""
    rows, size = train_rows(manifest.rows("train"), 0, 1, 0, 1, 32)
    plan = TrainPlan(
        images=Images(pixels, np.asarray(manifest.labels, np.int64)),
        rows=rows,
        batch_size=size,
        image_size=SIZE,
        augment=AugmentConfig(),
        seeds=(0, 1, 0),
        mixes=False,
        on_device=False,
    )
    return sum(len(batch) for batch in Loader(plan))


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("memory", "trials", "images"))
    parser.add_argument("counts", type=int, nargs="*", help="how many, in turn")
    parser.add_argument("--lanes", type=int, default=2, help="of `trials`, that stand in for real")
    parser.add_argument("--address", default="local", help="of a Ray for `trials`")
    given = parser.parse_args()
    if given.what == "memory":
        memory(max(given.counts, default=100))
    elif given.what == "trials":
        trials(given.counts or [10, 100, 1000], given.lanes, given.address)
    else:
        images(given.counts or [1000, 10_000, 100_000])


if __name__ == "__main__":
    main()
