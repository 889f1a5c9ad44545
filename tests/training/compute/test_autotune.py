"""How a trial computes: measured where it pays, decided by what was measured, kept, replayed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from carray.config import Compute, TrialConfig
from carray.metrics import TRAIN_LOSS, VAL_LOG_LOSS
from carray.models.classifier import build_classifier
from carray.records import StudyFolder, TrialFolder
from carray.training.checkpoint import read_meta
from carray.training.compute import autotune
from carray.training.compute.autotune import (
    Timing,
    TimingCache,
    choose_compute,
    compiled_ways,
    decide,
    eager_ways,
    may_compile,
)
from tests.training.orders import new_runner, order_of, run, small_config

CPU = torch.device("cpu")
FIRST, LAST = Compute(), Compute(channels_last=True)
COMPILED = Compute(channels_last=True, compiled=True)


def chosen(config: TrialConfig, images: int, file: Path) -> Compute:
    return choose_compute(build_classifier(config, 4).classifier, config, images, CPU, file)


def test_a_short_trial_computes_as_usual_and_measures_nothing(tmp_path: Path) -> None:
    file = tmp_path / "probe.json"
    assert chosen(small_config(epochs=3), 64, file) == LAST
    assert not file.exists()


def test_a_short_trial_takes_what_a_long_one_has_measured(tmp_path: Path) -> None:
    file = tmp_path / "probe.json"
    chosen(small_config(epochs=100), 64, file)
    ((key, timings),) = TimingCache.read(file).timings.items()
    fast = tuple(
        t.model_copy(update={"step_seconds": 9.0 - 8 * (t.compute == FIRST)}) for t in timings
    )
    file.write_text(TimingCache(timings={key: fast}).model_dump_json())
    assert chosen(small_config(epochs=3), 64, file) == FIRST
    assert chosen(small_config(epochs=3, image_size=64), 64, file) == LAST
    assert list(TimingCache.read(file).timings) == [key]


def test_a_long_trial_is_measured_once_and_the_next_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "probe.json"
    first = chosen(small_config(epochs=100), 64, file)
    known = TimingCache.read(file).timings
    ((key, timings),) = known.items()
    assert key.startswith("test_resnet, 32 px, batch 16, ")
    assert {timing.compute for timing in timings} >= {FIRST, LAST}
    assert all(timing.step_seconds > 0 for timing in timings)
    told, *ways = TimingCache.read(file).lines()
    assert told == f"a step of {key}"
    assert len(ways) == len(timings)
    assert chosen(small_config(epochs=100), 64, file) == first
    assert TimingCache.read(file).timings == known
    chosen(small_config(epochs=100, image_size=64), 64, file)
    assert len(TimingCache.read(file).timings) == 2


def test_a_fixed_precision_is_kept(tmp_path: Path) -> None:
    config = small_config(epochs=100, precision="bf16")
    assert chosen(config, 64, tmp_path / "probe.json").precision == "bf16"


@pytest.mark.parametrize(
    ("step_ms", "best"),
    [((100, 100), LAST), ((96, 100), LAST), ((80, 100), FIRST), ((100, 80), LAST)],
)
def test_another_way_must_be_clearly_faster(step_ms: tuple[int, int], best: Compute) -> None:
    first, last = step_ms
    timings = [
        Timing(compute=LAST, step_seconds=last / 1000),
        Timing(compute=FIRST, step_seconds=first / 1000),
    ]
    assert decide(timings, LAST, 1000) == best


def test_compiling_must_be_won_back() -> None:
    timings = [
        Timing(compute=LAST, step_seconds=0.10),
        Timing(compute=COMPILED, step_seconds=0.05, compile_seconds=40),
    ]
    assert decide(timings, LAST, 500) == LAST
    assert decide(timings, LAST, 5000) == COMPILED


def test_compiling_is_measured_for_long_full_trials_alone() -> None:
    slow, gpu = [Timing(compute=LAST, step_seconds=0.5)], torch.device("cuda")
    assert may_compile(slow, small_config(), 1000, gpu)
    assert not may_compile(slow, small_config(), 1000, CPU)
    assert may_compile(slow, small_config(), 10_000, CPU)
    assert not may_compile(slow, small_config(), 100, CPU)
    assert not may_compile(slow, small_config(compile="off"), 10_000, CPU)
    gradual = small_config(finetune__policy="gradual")
    assert not may_compile(slow, gradual, 10_000, CPU)
    measured = [*slow, Timing(compute=COMPILED, step_seconds=0.4, compile_seconds=50)]
    assert not may_compile(measured, small_config(), 10_000, CPU)


def test_a_gpu_may_replay_graphs_of_steps_that_keep_no_gradients() -> None:
    gpu, graphs = torch.device("cuda"), COMPILED.model_copy(update={"graphs": True})
    captured = LAST.model_copy(update={"graphs": True})
    assert eager_ways(LAST, small_config(), gpu) == [LAST, captured]
    assert eager_ways(LAST, small_config(accumulation=2), gpu) == [LAST]
    assert eager_ways(LAST, small_config(), CPU)[:2] == [LAST, FIRST]
    assert compiled_ways(captured, small_config(), gpu) == [COMPILED, graphs]
    assert compiled_ways(LAST, small_config(accumulation=2), gpu) == [COMPILED]
    assert compiled_ways(LAST, small_config(), CPU) == [COMPILED]
    assert str(graphs) == "fp32, channels last, compiled, CUDA graphs"
    assert str(captured) == "fp32, channels last, CUDA graphs"


def test_a_way_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(autotune, "_step", out_of_memory)
    assert chosen(small_config(epochs=100), 64, tmp_path / "probe.json") == LAST


def test_a_trial_keeps_how_it_computes(tmp_path: Path, toy_data: Path) -> None:
    folder = TrialFolder(StudyFolder(tmp_path).path / "trials" / "0001")
    order = order_of(folder.path, toy_data, small_config()).model_copy(update={"compute": FIRST})
    outcome = new_runner().run_epoch(order)
    assert outcome.compute == FIRST
    meta = read_meta(folder.checkpoint)
    assert meta is not None
    assert meta.compute == FIRST
    again = new_runner().run_epoch(order.model_copy(update={"epoch": 2, "compute": None}))
    assert again.compute == FIRST
    assert folder.probe_file == tmp_path / "probe.json"


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")  # PyTorch's advice
def test_a_compiled_trial_learns_the_same(tmp_path: Path, toy_data: Path) -> None:
    tiny: dict[str, Any] = {
        "backbone": "small_car_cnn",
        "scratch__filters": 4,
        "scratch__depth": 1,  # a kernel is compiled for every block
        "scratch__dropout": 0.0,
        "epochs": 1,
    }
    eager = run(new_runner(), tmp_path / "eager", toy_data, small_config(**tiny))
    on = small_config(**tiny, compile="on")
    compiled = run(new_runner(), tmp_path / "on", toy_data, on)
    for name in (TRAIN_LOSS, VAL_LOG_LOSS):
        assert compiled[0][name] == pytest.approx(eager[0][name], rel=1e-3)
