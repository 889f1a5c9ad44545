"""A study's folder that mirrors one at a URL: what is brought here, and for whom.

Whoever looks at a study gets its records and logits; weights come when they are asked for. A driver
that goes on with it also gets the checkpoints of what ran, and Optuna's study.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from carray.files import claimed, write_text
from carray.records import StudyFolder, TrialFolder
from carray.storage.lease import Lease
from carray.storage.mirror import Mirror, mirror_of

LEASE_FILE = "driver.json"
HOLDER_FILE = ".holder"  # whose results this machine's folder has: the id of its last lease


def checkpoint_archive(trial: TrialFolder) -> Path:
    """Return what stands for a trial's checkpoint at the URL, and only there: it, in one file."""
    return trial.path / "checkpoint.tar"


def has_weights(trial: TrialFolder) -> bool:
    """Say whether a trial's weights are here, or at the URL that the runs folder mirrors."""
    mirror = mirror_of(trial.path)
    return trial.weights_file.exists() or bool(mirror and mirror.has(trial.weights_file))


def fetched_weights(trial: TrialFolder) -> Path:
    """Return a trial's weights file, fetched first where it is at the URL alone; there or not."""
    if not trial.weights_file.exists() and (mirror := mirror_of(trial.path)):
        mirror.fetch(trial.weights_file)
    return trial.weights_file


def lease_of(mirror: Mirror, folder: StudyFolder) -> Lease:
    """Return the lease of a study: who adds trials to it, on whichever machine."""
    return Lease(mirror.remote, f"{mirror.name_of(folder.path)}/{LEASE_FILE}")


def is_ours(mirror: Mirror, folder: StudyFolder) -> bool:
    """Say whether this machine was the last that added trials: its folder is the truth."""
    own = _own_id(folder)
    holder = lease_of(mirror, folder).holder()
    return bool(own) and (holder is None or holder.id == own)


def mark_ours(folder: StudyFolder, holder_id: str) -> None:
    """Note that this machine adds trials from here on."""
    write_text(folder.path / HOLDER_FILE, holder_id)


def is_light(name: str) -> bool:
    """Say whether a file of a study is fetched for whoever looks at it: all but the weights."""
    path = Path(name)
    is_heavy = path.suffix in (".safetensors", ".tar", ".db", ".part")
    return not is_heavy and path.name != LEASE_FILE


def is_record(name: str) -> bool:
    """Say whether a file tells how a study or a trial stands."""
    return is_light(name) and Path(name).suffix in (".json", ".jsonl")


def pull_study(
    mirror: Mirror, folder: StudyFolder, wanted: Callable[[str], bool] = is_light
) -> None:
    """Bring a study's records, logits and results here, as they are at the URL.

    What this machine has added to a study that another one has gone on with is moved aside.
    """
    below = mirror.name_of(folder.path)
    if not mirror.listing(below):
        return
    if is_ours(mirror, folder):
        mirror.pull(below, lambda name: "/ensembles/" in name)  # others make those
        return
    if _own_id(folder):
        if _is_running(folder):
            return
        _move_aside(mirror, folder)
    mirror.pull(below, wanted)


def pull_unfinished(mirror: Mirror, folder: StudyFolder, *, has_optuna_file: bool) -> None:
    """Bring what the next driver needs besides: Optuna's study, and where running trials were."""
    if has_optuna_file:
        mirror.fetch(folder.optuna_file)
    for trial, record in folder.trials():
        if record.keeps_checkpoint or not record.state.is_finished():
            mirror.fetch(trial.weights_file)
            archive = mirror.name_of(checkpoint_archive(trial))
            mirror.remote.fetch_folder(archive, trial.checkpoint)


def remove_strays(mirror: Mirror, folder: StudyFolder) -> None:
    """Remove, there and here, what is left of trials whose record never came to the URL.

    Their driver was lost while the URL took some files and not yet others; nobody can go on from
    weights that no record names.
    """
    trials = f"{mirror.name_of(folder.path)}/trials"
    names = mirror.remote.files(trials)
    for name in names:
        number = Path(name).relative_to(trials).parts[0]
        trial = TrialFolder(folder.path / "trials" / number)
        if mirror.name_of(trial.record_file) not in names:
            mirror.remote.remove(name)
            shutil.rmtree(trial.path, ignore_errors=True)


def _own_id(folder: StudyFolder) -> str:
    file = folder.path / HOLDER_FILE
    return file.read_text("utf-8") if file.exists() else ""


def _is_running(folder: StudyFolder) -> bool:
    with claimed(folder.driver_lock) as is_free:
        return not is_free


def _move_aside(mirror: Mirror, folder: StudyFolder) -> None:
    now = time.strftime("%Y%m%d-%H%M%S")
    aside = mirror.folder / "superseded" / f"{folder.path.name}-{now}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    folder.path.replace(aside)
