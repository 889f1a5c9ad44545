"""A checkpoint: a folder with a trial's state after an epoch, and `meta.json` that says which.

Epochs draw their random numbers from (seed, epoch), so no generator's state has to be kept.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from carray.config import Compute, TrialConfig
from carray.errors import TrialFailed
from carray.files import recovered, write_text, written_aside
from carray.models.classifier import Classifier
from carray.records import TrialFolder
from carray.training.schedule import Plateau
from carray.training.trial_state import LiveTrial

STATE_FILE, META_FILE = "state.pt", "meta.json"
VERSION = 1


class CheckpointMeta(BaseModel):
    """`meta.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")
    version: int = VERSION
    stamp: str
    """Names these weights: a state in memory with the same stamp equals them."""
    trial: str
    config: TrialConfig
    rows: tuple[dict[str, float], ...]
    """Metrics of the epochs done, from the first."""
    plateau: dict[str, float]
    initialisation: str
    parameters: int
    compute: Compute | None = None

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.rows)


def read_meta(folder: Path) -> CheckpointMeta | None:
    """Return the meta data, or None where there is no checkpoint that can be read."""
    try:
        text = (recovered(folder) / META_FILE).read_text(encoding="utf-8")
        is_whole = is_zipfile(folder / STATE_FILE)  # its end is there
        return CheckpointMeta.model_validate_json(text) if is_whole else None
    except (OSError, ValidationError):
        return None


@contextmanager
def checkpointed(folder: Path, live: LiveTrial) -> Iterator[None]:
    """Write what `live` has learned while the caller judges it; then what came of that, and rename.

    Until the end the caller leaves the classifier, its average and the optimizer as they are; by
    the end `live` has the epoch's row, and a stamp that names the new checkpoint. An error leaves
    the checkpoint of the epoch before.
    """
    with written_aside(folder) as aside, ThreadPoolExecutor(1) as pool:
        aside.mkdir()
        written = pool.submit(_write_state, _state_of(live), aside / STATE_FILE)
        yield
        written.result()
        write_text(aside / META_FILE, _meta_of(live).model_dump_json() + "\n")


def _write_state(state: dict[str, Any], file: Path) -> None:
    """Write `state` through Python, whose errors say why: torch's own writer's don't."""
    with file.open("wb") as opened:
        torch.save(state, opened)


def _meta_of(live: LiveTrial) -> CheckpointMeta:
    return CheckpointMeta(
        stamp=live.stamp,
        trial=live.trial,
        config=live.config,
        rows=tuple(dict(row) for row in live.rows),
        plateau=asdict(live.plateau),
        initialisation=live.initialisation,
        parameters=live.parameters,
        compute=live.compute,
    )


def new_stamp() -> str:
    """Return a name that no other checkpoint has."""
    return uuid.uuid4().hex


def _state_of(live: LiveTrial) -> dict[str, Any]:
    averaged = live.averaged
    return {
        "classifier": _moved(live, live.classifier),
        "optimizer": live.optimizer.state_dict(),
        "scaler": live.scaler.state_dict(),
        "averaged": _moved(live, averaged.classifier) if averaged else {},
        "averaged_steps": averaged.steps if averaged else 0,
    }


def _moved(live: LiveTrial, classifier: Classifier) -> dict[str, Tensor]:
    """Return the state of the layers that may have moved since the classifier was built."""
    state: dict[str, Tensor] = classifier.state_dict()
    if live.config.finetune.policy != "head_only":
        return state
    return {name: value for name, value in state.items() if name.startswith("head.")}


def _load_moved(classifier: Classifier, state: dict[str, Tensor]) -> None:
    """Load what `_moved` returned; raises RuntimeError where it is another classifier's."""
    if any(name.startswith("backbone.") for name in state):
        classifier.load_state_dict(state)
        return
    head = {name.removeprefix("head."): value for name, value in state.items()}
    classifier.head.load_state_dict(head)


def load_checkpoint(folder: Path, meta: CheckpointMeta, live: LiveTrial) -> None:
    """Bring a freshly built `live` to the state of the checkpoint.

    The learning rates and weight decays stay those of `live.config`.

    Raises:
        TrialFailed: the checkpoint can't be read or is another classifier's.
    """
    state = _read_state(folder / STATE_FILE)
    try:
        _load_moved(live.classifier, state["classifier"])
        _load_optimizer(live, state["optimizer"])
        live.scaler.load_state_dict(state["scaler"])
        if live.averaged:
            _load_moved(live.averaged.classifier, state["averaged"] or state["classifier"])
            live.averaged.steps = state["averaged_steps"]
    except (RuntimeError, KeyError, ValueError) as error:
        raise _unreadable(folder, error) from None
    live.plateau = Plateau(
        meta.plateau["factor"], meta.plateau["best"], int(meta.plateau["bad_epochs"])
    )
    live.rows = [dict(row) for row in meta.rows]
    live.stamp = meta.stamp


def take_over_checkpoint(
    source: TrialFolder, target: TrialFolder, trial: str, config: TrialConfig
) -> CheckpointMeta | None:
    """Begin `trial` in `target` with the checkpoint and the best weights of the trial in `source`.

    Its `config` must train the epochs done as the other's did: `TrialConfig.continued`.

    Returns:
        What the new checkpoint says; None where the other left none, or no weights.
    """
    meta = read_meta(source.checkpoint)
    if meta is None or not source.weights_file.exists():
        return None
    with written_aside(target.weights_file) as aside:
        shutil.copyfile(source.weights_file, aside)
    meta = meta.model_copy(update={"trial": trial, "config": config, "stamp": new_stamp()})
    with written_aside(target.checkpoint) as aside:
        aside.mkdir()
        shutil.copyfile(source.checkpoint / STATE_FILE, aside / STATE_FILE)
        write_text(aside / META_FILE, meta.model_dump_json() + "\n")
    return meta


def _read_state(file: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torn bytes make of the unpickler
        raise _unreadable(file.parent, error) from None
    return state


def _unreadable(folder: Path, error: Exception) -> TrialFailed:
    problem = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return TrialFailed(f"the checkpoint {folder} can't be loaded: {problem}")


def _load_optimizer(live: LiveTrial, state: dict[str, Any]) -> None:
    settings = [
        {name: group[name] for name in ("lr", "peak_lr", "weight_decay")}
        for group in live.optimizer.param_groups
    ]
    live.optimizer.load_state_dict(state)
    for group, own in zip(live.optimizer.param_groups, settings, strict=True):
        group.update(own)
