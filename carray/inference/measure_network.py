"""How long a network takes on this machine for one image, and how large it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from carray.config import CLASSICAL_HEADS, HeadConfig, TrialConfig
from carray.errors import ConfigError
from carray.models.classifier import Classifier
from carray.predictions.network_costs import Device, NetworkCost, NetworkCosts, network_of
from carray.progress import silent
from carray.records import StudyFolder
from carray.training.runner import hardware_of
from carray.training.trial_state import default_compute
from carray.typing import Progress

LEAST_RUNS, MOST_RUNS, WARM_RUNS = 5, 300, 2
SECONDS = 0.5
MB = 10**6


def measure_network(config: TrialConfig, num_classes: int, on: Device = "cpu") -> NetworkCost:
    """Time the network of a configuration, with random weights, as predictions compute it.

    Raises:
        ConfigError: it can't be built, or `device` isn't here.
    """
    head = HeadConfig() if config.head.kind in CLASSICAL_HEADS else config.head
    device = torch.device(on)
    precision = "fp32" if on == "cpu" else config.precision
    config = config.model_copy(update={"head": head, "precision": precision, "drop_path": 0.0})
    classifier = Classifier(config, num_classes).eval()
    compute = default_compute(config, classifier, device)
    layout = torch.channels_last if compute.channels_last else torch.contiguous_format
    # torch's stubs know no memory format in Module.to
    classifier.to(device, memory_format=layout)  # type: ignore[call-overload]
    image = torch.rand(1, 3, config.image_size, config.image_size, device=device)
    image = image.contiguous(memory_format=layout)
    is_half = compute.precision != "fp32"
    kind = torch.float16 if compute.precision == "fp16" else torch.bfloat16

    def answer() -> None:
        with torch.inference_mode(), torch.autocast(on, kind, enabled=is_half):
            classifier(image)
        if on == "cuda":
            torch.cuda.synchronize()

    took = call_seconds(answer, SECONDS)
    return NetworkCost(
        network=network_of(config),
        device=on,
        hardware=str(hardware_of(device)),
        milliseconds=1000 * median(took),
        mb=4 * sum(value.numel() for value in classifier.state_dict().values()) / MB,
        multiply_adds=_multiply_adds(classifier, image),
    )


@torch.no_grad()
def _multiply_adds(classifier: Classifier, image: Tensor) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        classifier(image)
    return int(counter.get_total_flops()) // 2


def measure_study(
    folder: StudyFolder, on: Device = "cpu", threads: int = 0, progress: Progress = silent
) -> NetworkCosts:
    """Time the networks of a study's trials that weren't timed on this hardware; keep the times.

    Raises:
        ConfigError: there is no GPU, or a network can't be built.
    """
    if on == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--on cuda needs a GPU, and torch sees none here: leave it out")
    if threads:
        torch.set_num_threads(threads)
    trained = [record.config for record in folder.records() if record.epochs]
    return measure_networks(folder, trained, len(folder.record().classes), on, progress)


def measure_networks(
    folder: StudyFolder,
    configs: Iterable[TrialConfig],
    num_classes: int,
    on: Device = "cpu",
    progress: Progress = silent,
) -> NetworkCosts:
    """Time the networks of configurations that a study's folder has no times of on this hardware.

    They are kept there, and returned with those that it has.

    Raises:
        ConfigError: a network can't be built.
    """
    known, hardware = NetworkCosts.of(folder), str(hardware_of(torch.device(on)))
    here = NetworkCosts(networks=tuple(o for o in known.networks if o.hardware == hardware))
    alone = {str(network_of(config)): config for config in configs}
    missing = [config for config in alone.values() if here.find(config, on) is None]
    if not missing:
        return known
    measured = []
    with progress("timing networks", len(missing), "networks") as advance:
        for config in missing:
            measured.append(measure_network(config, num_classes, on))
            advance(1)
    found = known.with_new(measured)
    found.write(folder.costs_file)
    return found


def call_seconds(call: Callable[[], object], seconds: float) -> list[float]:
    """Return the seconds of each call, for about `seconds`; the first ones are left out."""
    for _ in range(WARM_RUNS):
        call()
    took: list[float] = []
    until = time.perf_counter() + seconds
    while len(took) < LEAST_RUNS or (time.perf_counter() < until and len(took) < MOST_RUNS):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return took
