"""Epochs of one trial on several ranks of this machine: processes, without Ray."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessException, start_processes

from carray.errors import TrialFailed
from carray.files import add_json_line, read_json_lines
from carray.training.epoch_order import EpochOrder
from carray.training.ranks import TorchRanks
from carray.training.runner import TrialRunner

ROWS_FILE = "rows.jsonl"


def run_on_ranks(
    orders: Sequence[EpochOrder], ranks: int, threads: int, device: torch.device, aside: Path
) -> list[dict[str, float]]:
    """Carry out `orders` on so many ranks of `threads` threads each; return the epochs' metrics.

    Args:
        orders: epochs of one trial, the first one first.
        ranks: how many processes; on GPUs, each takes one of its own.
        threads: torch's, in each of them.
        device: its type says where they compute.
        aside: an empty folder, where they meet.

    Raises:
        TrialFailed: a rank ended with an error.
    """
    texts = [order.model_dump_json() for order in orders]
    arguments = (ranks, threads, device.type, texts, str(aside))
    try:
        start_ranks(_rank, arguments, ranks)
    except ProcessException as error:
        *_, last = str(error).strip().splitlines()
        raise TrialFailed(f"a rank ended: {last}") from error
    return read_json_lines(aside / ROWS_FILE)


def start_ranks(work: Callable[..., None], arguments: tuple[Any, ...], ranks: int) -> None:
    """Run `work(RANK, *arguments)` in a process a rank, and wait for all.

    They are forks of one process that has loaded torch and timm but not used them, which costs as
    many CPU seconds as a hundred steps of a small net; Python keeps it until this process ends.

    Raises:
        ProcessException: a rank ended with an error, of torch's.
    """
    multiprocessing.set_forkserver_preload([__name__])
    start_processes(  # type: ignore[no-untyped-call]
        work, arguments, nprocs=ranks, start_method="forkserver"
    )


def _rank(
    rank: int, ranks: int, threads: int, kind: str, orders: Sequence[str], aside: str
) -> None:
    """Be one rank; rank 0 leaves each epoch's metrics."""
    torch.set_num_threads(threads)
    if kind == "cuda":
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=(Path(aside) / "meeting").as_uri(),
        rank=rank,
        world_size=ranks,
    )
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    runner = TrialRunner(TorchRanks(), device, threads)
    for text in orders:
        outcome = runner.run_epoch(EpochOrder.model_validate_json(text))
        if rank == 0:
            add_json_line(Path(aside) / ROWS_FILE, outcome.metrics)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads may abort an interpreter that winds down
