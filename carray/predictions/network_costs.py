"""What the networks of a study cost on a machine, kept beside its trials; nothing is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

from carray.config import CLASSICAL_HEADS, HeadConfig, TrialConfig
from carray.json_file import JsonFile
from carray.records import StudyFolder, TrialState

Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = get_args(Device)
COSTS = {"latency": "milliseconds", "size": "mb"}  # an objective -> the figure that it is

ENDED_WELL = (TrialState.COMPLETE, TrialState.PRUNED)


class NetworkCost(JsonFile):
    """One network at one image size, one image at a time."""

    network: dict[str, Any]
    """What decides it, of a trial's configuration: see `network_of`."""
    device: Device
    hardware: str
    """As records have it, as in `1 rank of 2 threads, cpu AVX512`."""
    milliseconds: float
    """Half of all images take less, from a square on the device to logits."""
    mb: float
    """Of the weights, 10^6 bytes."""
    multiply_adds: int
    """For one image."""


class NetworkCosts(JsonFile):
    """`costs.json` of a study."""

    cure: ClassVar[str] = "move it away, and `carray bench STUDY` measures anew"
    networks: tuple[NetworkCost, ...] = ()

    @classmethod
    def of(cls, study: StudyFolder) -> NetworkCosts:
        """Return what was measured of a study; nothing where it wasn't."""
        return cls.read(study.costs_file) if study.costs_file.exists() else cls()

    def find(self, config: TrialConfig, device: str = "cpu") -> NetworkCost | None:
        """Return what a trial's network costs on `device`; None where it wasn't measured."""
        network = network_of(config)
        alike = (one for one in self.networks if one.network == network and one.device == device)
        return next(alike, None)

    def with_new(self, measured: Sequence[NetworkCost]) -> NetworkCosts:
        """Return these with others, which take the place of the same network's."""
        new = {(str(one.network), one.device) for one in measured}
        kept = (one for one in self.networks if (str(one.network), one.device) not in new)
        return NetworkCosts(networks=(*kept, *measured))

    def figures(self, config: TrialConfig) -> dict[str, float]:
        """Return a trial's figures by name, as in `ms_cpu`; nothing where it wasn't measured."""
        found = [cost for on in DEVICES if (cost := self.find(config, on))]
        figures: dict[str, float] = {f"ms_{cost.device}": cost.milliseconds for cost in found}
        if found:
            figures |= {"mb": found[0].mb, "multiply_adds": found[0].multiply_adds}
        return figures

    def texts(self, config: TrialConfig) -> list[str]:
        """Return what a person reads of them, a line a device."""
        return [
            f"{cost.milliseconds:.1f} ms an image on {cost.device}, {cost.mb:.1f} MB, "
            f"{cost.multiply_adds / 1e9:.3g} G multiply-adds"
            for on in DEVICES
            if (cost := self.find(config, on))
        ]


def front_rows(folder: StudyFolder) -> list[dict[str, Any]]:
    """Return the trials that none beats in all objectives of their study, the cheapest first.

    A row has the trial's name, backbone, state and objectives. Those that were stopped count with
    their best epoch; folds don't count, since they are judged on other images. Nothing where the
    study has one objective.
    """
    study, rows = folder.record(), []
    for record in folder.records():
        value = record.best(study.metric)
        is_judged = record.config.fold is None and record.state in ENDED_WELL
        if is_judged and math.isfinite(value) and record.network_cost:
            name = {"trial": record.name, "backbone": record.config.backbone}
            values = {study.metric: value, **record.network_cost}
            rows.append({**name, "state": str(record.state), **values})
    sign = study.objective.sign

    def losses(row: dict[str, Any]) -> tuple[float, ...]:
        return (*(row[name] for name in study.objectives[1:]), sign * row[study.metric])

    front: list[dict[str, Any]] = []
    for row in sorted(rows, key=losses):  # whatever beats a row in all comes before it
        own = losses(row)
        if not any(all(a <= b for a, b in zip(losses(o), own, strict=True)) for o in front):
            front.append(row)
    return front


def is_as_cheap(cost: Mapping[str, float], than: Mapping[str, float]) -> bool:
    """Say whether a network costs at most as much in all that `than` says; True of nothing."""
    return all(cost.get(name, math.inf) <= limit for name, limit in than.items())


def network_of(config: TrialConfig) -> dict[str, Any]:
    """Return what of a configuration decides what its network costs: backbone, size and head."""
    head = HeadConfig() if config.head.kind in CLASSICAL_HEADS else config.head
    parts = {"head": head.model_copy(update={"seed": None}), "scratch": config.scratch}
    changed = {name: part.model_dump(exclude_defaults=True) for name, part in parts.items()}
    return {"backbone": config.backbone, "image_size": config.image_size, **changed}
