"""Two real ranks over gloo: they agree, and two are as good as one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from carray import metrics
from carray.config import TrialConfig, build_config, flatten
from carray.errors import TrialFailed
from carray.models.classifier import load_classifier
from carray.records import TrialFolder
from carray.training.epoch_order import EpochOrder
from carray.training.rank_processes import run_on_ranks, start_ranks
from carray.training.ranks import SoloRanks, TorchRanks
from carray.training.runner import TrialRunner
from tests.training.orders import new_runner, order_of, run, scores_of, small_config

CONFIG = small_config(epochs=2, device_batch_size=8, ema_decay=0.5, augment__strength=0.2)
WILD = small_config(
    backbone="lcnet_035",
    device_batch_size=8,
    optimizer__name="sgd",
    optimizer__lr=10.0,
    optimizer__weight_decay=1.0,
)


def be_rank(rank: int, data: str, folder: Path, configs: Sequence[str]) -> None:
    """Carry out orders as one of two ranks; leave what they came to in `folder/RANK.json`."""
    torch.set_num_threads(1)
    config, wild = (build_config(json.loads(text)) for text in configs)
    meeting = (folder / "meeting").as_uri()
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    ranks = TorchRanks()
    told: dict[str, Any] = {
        "sum": ranks.all_sum(torch.tensor([1.0 + rank], dtype=torch.float64)).item(),
        "object": ranks.broadcast_object({"from": rank}),
        "any": [ranks.any(rank == 1), ranks.any(False)],
    }
    runner = TrialRunner(ranks, torch.device("cpu"), 1)

    def order(name: str, config: TrialConfig, epoch: int) -> EpochOrder:
        return EpochOrder(
            trial=name, folder=str(folder / name), data=data, config=config, epoch=epoch
        )

    told["rows"] = [runner.run_epoch(order("both", config, e)).metrics for e in (1, 2)]
    assert runner.live is not None
    told["sums"] = [
        sum(p.double().sum().item() for p in c.state_dict().values())
        for c in (runner.live.classifier, runner.live.judged)
    ]
    runner.finish(order("both", config, 2))
    try:
        runner.run_epoch(order("wild", wild, 1))
    except TrialFailed as error:
        told["failed"] = str(error)
    gradual = config.model_copy(
        update={"finetune": config.finetune.model_copy(update={"policy": "gradual"})}
    )
    told["gradual"] = [runner.run_epoch(order("gradual", gradual, e)).metrics for e in (1, 2)]
    (folder / f"{rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads may abort an interpreter that winds down


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, toy_data: Path) -> list[dict[str, Any]]:
    """What two processes said of the same orders, and the folder they left them in."""
    folder = tmp_path_factory.mktemp("ranks")
    configs = [json.dumps(flatten(config)) for config in (CONFIG, WILD)]
    start_ranks(be_rank, (str(toy_data), folder, configs), 2)
    texts = [(folder / f"{rank}.json").read_text() for rank in (0, 1)]
    return [json.loads(text) | {"folder": str(folder)} for text in texts]


def test_sums_objects_and_flags_are_shared(told: list[dict[str, Any]]) -> None:
    for answer in told:
        assert answer["sum"] == 3.0
        assert answer["object"] == {"from": 0}
        assert answer["any"] == [True, False]


def test_both_ranks_say_the_same_of_an_epoch(told: list[dict[str, Any]]) -> None:
    assert told[0]["rows"] == told[1]["rows"]
    assert told[0]["gradual"] == told[1]["gradual"]


def test_weights_and_statistics_stay_equal_on_both_ranks(told: list[dict[str, Any]]) -> None:
    assert told[0]["sums"] == pytest.approx(told[1]["sums"], rel=1e-12)


def test_ranks_that_are_started_again_repeat_every_score(
    told: list[dict[str, Any]], tmp_path: Path, toy_data: Path
) -> None:
    orders = [order_of(tmp_path / "again", toy_data, CONFIG, epoch, "both") for epoch in (1, 2)]
    again = run_on_ranks(orders, 2, 1, torch.device("cpu"), tmp_path)
    assert [scores_of(row) for row in again] == [scores_of(row) for row in told[0]["rows"]]


def test_a_failure_is_agreed_on(told: list[dict[str, Any]]) -> None:
    assert told[0]["failed"] == told[1]["failed"]
    assert "loss is nan" in told[0]["failed"]


def test_sharded_logits_and_scores_are_those_of_one_rank(
    told: list[dict[str, Any]], tmp_path: Path, toy_data: Path
) -> None:
    left = TrialFolder(Path(told[0]["folder"]) / "both")
    alone = TrialFolder(tmp_path)
    tmp_path.joinpath("best.safetensors").write_bytes(left.weights_file.read_bytes())
    new_runner().finish(order_of(tmp_path, toy_data, CONFIG, 2))
    for split in ("val", "test"):
        ours, theirs = (torch.from_numpy(f.logits(split)).float() for f in (alone, left))
        assert torch.allclose(ours, theirs, atol=2e-2)
    best = min(row[metrics.VAL_LOG_LOSS] for row in told[0]["rows"])
    from carray.data.manifest import Manifest

    manifest = Manifest.load(toy_data)
    labels = torch.from_numpy(manifest.labels[manifest.rows("val")])
    log_loss = torch.nn.functional.cross_entropy(
        torch.from_numpy(left.logits("val")).float(), labels
    )
    assert log_loss.item() == pytest.approx(best, abs=2e-3)
    assert load_classifier(CONFIG, 12, left.weights_file)


def test_two_ranks_learn_what_one_rank_learns_with_their_batches_together(
    told: list[dict[str, Any]], tmp_path: Path, toy_data: Path
) -> None:
    wide = CONFIG.model_copy(update={"device_batch_size": 16})
    alone = run(new_runner(), tmp_path, toy_data, wide)
    for one, two in zip(alone, told[0]["rows"], strict=True):
        # the same images in each step, but other augmentation and batch statistics per rank
        assert two[metrics.TRAIN_LOSS] == pytest.approx(one[metrics.TRAIN_LOSS], rel=0.15)
        assert two[metrics.LR] == pytest.approx(one[metrics.LR])


def test_one_rank_alone_shares_with_itself() -> None:
    ranks = SoloRanks()
    assert ranks.all_sum(torch.ones(2)).tolist() == [1, 1]
    assert ranks.broadcast_object("x") == "x"
    assert ranks.any(True)
    assert not ranks.any(False)
