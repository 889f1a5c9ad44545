"""The energy of an epoch: NVML stands in, since it counts only where there is a GPU."""

from __future__ import annotations

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from carray.costs import Held
from carray.training.compute.energy import EpochMeter, drawn_joules
from carray.training.ranks import SoloRanks


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What an NVML that knows one GPU says it has drawn, in mJ."""
    drawn, nvml = [0.0], ModuleType("pynvml")
    nvml.__dict__.update(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: {"GPU-7": drawn[0]}[handle],
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="7")
    )
    return drawn


def test_what_a_gpu_drew_since_is_counted(counter: list[float]) -> None:
    meter = EpochMeter(torch.device("cuda"))
    counter[0] = 2500.0
    assert meter.joules(SoloRanks()) == pytest.approx(2.5)
    assert meter.seconds > 0


def test_what_nobody_counts_is_not_guessed(
    counter: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EpochMeter(torch.device("cpu")).joules(SoloRanks()) is None

    def refuse() -> None:
        raise RuntimeError("Driver Not Loaded")

    monkeypatch.setattr(sys.modules["pynvml"], "nvmlInit", refuse)
    assert math.isnan(drawn_joules(torch.device("cuda")))
    assert EpochMeter(torch.device("cuda")).joules(SoloRanks()) is None


def test_a_shared_gpu_is_paid_for_by_its_share() -> None:
    assert Held(gpus=0.5).cost(10, 7.2e6).energy_kwh == pytest.approx(1.0)
    assert Held(gpus=2).cost(10, 7.2e6, ranks=2).energy_kwh == pytest.approx(2.0)
    assert str(Held(gpus=1).cost(3600, 1.8e6)) == "1 GPU-h, 0.5 kWh"
