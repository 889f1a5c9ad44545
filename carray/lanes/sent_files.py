"""A rank's work where the driver's folders may not be seen.

What it needs is brought, and what a trial leaves is sent and acknowledged before its order is
answered.

A node that shares the driver's folder is told by a file in it, not by the folder's name; there
nothing travels. The driver's folder is the truth: whatever differs from it here is thrown away.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Protocol

from carray.data.manifest import Manifest
from carray.data.remote_data import sent_manifest
from carray.errors import CarrayError, ClusterError, WeightsError
from carray.files import locked, remove
from carray.lanes.depot import TEACHERS, WEIGHTS, Stamps, StudyPlaces, is_copy
from carray.lanes.depot_client import DepotClient, DriverFolder
from carray.lanes.lane_rank import NOT_AT_DRIVER, Runner
from carray.models.weights import find_weights, weights_name
from carray.records import TrialFolder
from carray.storage.cache import cache_folder, folder_of
from carray.storage.mirror import mirrored
from carray.storage.remote import is_url
from carray.training.checkpoint import take_over_checkpoint
from carray.training.epoch_order import EpochOrder, EpochOutcome
from carray.training.ranks import Ranks
from carray.training.teacher import card_hash

CHECKPOINT = ("checkpoint",)
ALL = ("best.safetensors", "logits.npz", *CHECKPOINT)
LEFT_SECONDS = 86400.0  # after which a folder that no rank has used is nobody's


class TrialTrainer(Runner, Protocol):
    """What trains: `TrialRunner`."""

    def holds(self, order: EpochOrder) -> bool:
        """Say whether its memory holds the state that the order's epoch starts from."""


class NodeFolders:
    """Where this process has a study's files: in the driver's folders, or in the cache.

    Args:
        places: the driver's.
        depot: gives and takes what travels.
        cache: of this node; the usual one by default.
    """

    def __init__(self, places: StudyPlaces, depot: DepotClient, cache: Path | None = None) -> None:
        self._places, self._depot = places, depot
        self._own = (cache or cache_folder()) / "lanes" / places.nonce.lstrip(".")
        self.study = DriverFolder(depot, "study", f"driver:/{places.study}")
        self._data: dict[str, str] = {}
        self._weights: dict[str, str] = {}
        self._teachers: dict[str, str] = {}

    @cached_property
    def is_shared(self) -> bool:
        """Whether the driver's study folder is seen here, under its own name."""
        return (Path(self._places.study) / self._places.nonce).exists()

    def here(self, order: EpochOrder) -> EpochOrder:
        """Return the order with the paths of this node."""
        changes = {
            "data": self._data_here(order.data),
            "weights": self._weights_here(order),
            "teacher": self._teacher_here(order.config.distill.teacher),
        }
        if not self.is_shared:
            self._use()
            changes["folder"] = str(self._own / self.name(order.folder))
            if order.continues:
                changes["continues"] = str(self._own / self.name(order.continues))
        return order.model_copy(update=changes)

    def name(self, folder: str) -> str:
        """Return what a folder of the driver's is called in its study: `trials/0007`."""
        return Path(folder).relative_to(self._places.study).as_posix()

    def _use(self) -> None:
        """Note that this session's folder is used; remove those that nobody has used for long."""
        used = self._own / "used"
        self._own.mkdir(parents=True, exist_ok=True)
        used.touch()
        for other in self._own.parent.glob("*/used"):
            with suppress(FileNotFoundError):  # another rank was faster
                if time.time() - other.stat().st_mtime > LEFT_SECONDS:
                    shutil.rmtree(other.parent, ignore_errors=True)

    def _data_here(self, where: str) -> str:
        if where not in self._data:
            self._data[where] = self._found_data(where)
        return self._data[where]

    def _weights_here(self, order: EpochOrder) -> str | None:
        """Return where the trial's pretrained weights are looked for: as ordered, or the driver's.

        The driver's own go before a hub's, which may be others.
        """
        backbone, pretrained = order.config.backbone, order.config.pretrained
        theirs = self._places.weights.get(backbone)
        if pretrained is not True or not theirs or find_weights(backbone, True, order.weights):
            return order.weights
        if backbone not in self._weights:
            self._weights[backbone] = self._fetched_weights(backbone, Path(theirs))
        return self._weights[backbone]

    def _fetched_weights(self, backbone: str, theirs: Path) -> str:
        source = DriverFolder(self._depot, WEIGHTS, f"driver:/{theirs.parent}")
        stamp = source.stamp(backbone)
        if stamp is None:
            raise WeightsError(f"the driver's weights of {backbone!r}, {theirs}, are gone")
        folder = folder_of(f"driver:/{theirs}:{stamp.size}:{stamp.changed_at}", WEIGHTS)
        file = folder / f"{weights_name(backbone, theirs)}{theirs.suffix}"
        with locked(folder.with_name(f".lock-{folder.name}")):
            if not is_copy(file, {"": stamp}):
                source.fetch(backbone, file)
        return str(folder)

    def _teacher_here(self, name: str) -> str | None:
        """Return where the package is that a trial learns from; None: where its driver has it."""
        if name in self._places.teachers and name not in self._teachers:
            self._teachers[name] = self._found_teacher(name, self._places.teachers[name])
        return self._teachers.get(name)

    def _found_teacher(self, name: str, card: str) -> str:
        if card_hash(name) == card:
            return name
        source = DriverFolder(self._depot, TEACHERS, f"driver:/{name}")
        folder = folder_of(f"driver:/{name}:{card}", TEACHERS)
        with locked(folder.with_name(f".lock-{folder.name}")):
            if card_hash(folder) != card and not source.fetch_folder(card, folder):
                raise WeightsError(f"the driver's package {name!r}, a teacher, is gone")
        return str(folder)

    def _found_data(self, where: str) -> str:
        wanted = self._places.manifest_hash
        if is_url(where):  # which needn't answer where this node has the data already
            kept = mirrored(where, "data").folder
            return str(kept) if has_data(str(kept), wanted) else where
        if has_data(where, wanted):
            return where
        source = DriverFolder(self._depot, "data", f"driver:/{where}")
        return str(sent_manifest(source, wanted))


def has_data(where: str, manifest_hash: str) -> bool:
    """Say whether the data set of this hash is in a folder here."""
    try:
        return Manifest.load(where).hash == manifest_hash
    except (CarrayError, OSError):
        return False


class SendingRunner:
    """A rank's runner, with files that travel; see `Runner`."""

    def __init__(self, runner: TrialTrainer, ranks: Ranks, folders: NodeFolders) -> None:
        self._runner, self._ranks, self._folders = runner, ranks, folders
        self._used: set[Path] = set()  # trials' folders of this node

    @cached_property
    def _travels(self) -> bool:
        """Whether any rank is where the driver's folder isn't seen; first asked by all at once."""
        return self._ranks.any(not self._folders.is_shared)

    def run_epoch(self, order: EpochOrder) -> EpochOutcome:
        """Train and evaluate one epoch from the driver's checkpoint; send the one that it leaves.

        Raises:
            ClusterError: the driver doesn't acknowledge it.
        """
        here = self._begun(order)
        if self._travels:
            self._bring(order, here)
        outcome = self._runner.run_epoch(here)
        if self._travels:
            self._send(order, here)
        return outcome

    def finish(self, order: EpochOrder) -> None:
        """Write what an ended trial leaves, and send it; raises as `run_epoch` does."""
        here = self._begun(order)
        if not self._travels:
            self._runner.finish(here)
            return
        there = self._there(order.folder) if self._ranks.rank == 0 else None
        there = self._ranks.broadcast_object(there)
        self._bring_trial(order.folder, here.folder, there, ALL)
        self._runner.finish(here)
        self._send(order, here)
        self._ranks.barrier()  # `release` removes the folder

    def release(self) -> None:
        """Free what the trial held, here on the disk too."""
        self._runner.release()
        self._forget(self._used)

    def _begun(self, order: EpochOrder) -> EpochOrder:
        here = self._folders.here(order)
        if not self._folders.is_shared:
            used = {Path(folder) for folder in (here.folder, here.continues) if folder}
            self._forget(self._used - used)  # of a trial that was paused
            self._used |= used
        return here

    def _forget(self, folders: Collection[Path]) -> None:
        for folder in list(folders):
            remove(folder)
            self._used.discard(folder)

    def _bring(self, order: EpochOrder, here: EpochOrder) -> None:
        """Have what the epoch starts from here, unless memory holds it."""
        there = self._there(order.folder) if self._ranks.rank == 0 else {}
        is_current = self._ranks.rank == 0 and self._is_current(here, there)
        there, is_current = self._ranks.broadcast_object((there, is_current))
        if is_current:
            return
        self._bring_trial(order.folder, here.folder, there, CHECKPOINT)
        if order.continues and here.continues and not there:
            self._bring_trial(order.continues, here.continues, self._there(order.continues), ALL)
            self._take_over(order, here)

    def _take_over(self, order: EpochOrder, here: EpochOrder) -> None:
        """Do as rank 0's runner does, for a rank that won't see what it does."""
        if self._ranks.rank and not self._folders.is_shared and here.continues:
            source, target = (TrialFolder(Path(each)) for each in (here.continues, here.folder))
            take_over_checkpoint(source, target, order.trial, order.config)

    def _is_current(self, here: EpochOrder, there: Stamps) -> bool:
        checkpoint = TrialFolder(Path(here.folder)).checkpoint
        return self._runner.holds(here) and is_copy(checkpoint, _part_of(there, checkpoint.name))

    def _there(self, folder: str) -> Stamps:
        """Return what the driver has of a trial, by names in its folder."""
        name = self._folders.name(folder)
        found = self._folders.study.files(name)
        return {each.removeprefix(f"{name}/"): stamp for each, stamp in found.items()}

    def _bring_trial(self, theirs: str, here: str, there: Stamps, wanted: Collection[str]) -> None:
        """Fetch the wanted files that differ; remove others that do, for they are older."""
        if self._folders.is_shared:
            return
        folder, name = Path(here), self._folders.name(theirs)
        with locked(folder.with_name(f".lock-{folder.name}")):
            folder.mkdir(parents=True, exist_ok=True)
            for each in ALL:
                stamps = _part_of(there, each)
                if is_copy(folder / each, stamps):
                    continue
                remove(folder / each)
                if stamps and each in wanted:
                    study = self._folders.study
                    fetch = study.fetch if "" in stamps else study.fetch_folder
                    fetch(f"{name}/{each}", folder / each)

    def _send(self, order: EpochOrder, here: EpochOrder) -> None:
        """Send what differs, weights before the checkpoint that counts on them."""
        if self._folders.is_shared or self._ranks.rank:
            return
        try:
            there, name = self._there(order.folder), self._folders.name(order.folder)
            for each in ALL:
                self._send_part(Path(here.folder) / each, f"{name}/{each}", _part_of(there, each))
        except Exception as error:
            raise ClusterError(f"what {order.trial} left {NOT_AT_DRIVER}: {error}") from error

    def _send_part(self, path: Path, name: str, theirs: Stamps) -> None:
        if is_copy(path, theirs):
            return
        if path.is_dir():
            self._folders.study.put_folder(path, name)
        elif path.exists():
            self._folders.study.put(path, name)
        elif name.endswith(CHECKPOINT):  # the trial is finished; weights may be the driver's alone
            self._folders.study.remove(name)


def _part_of(there: Stamps, name: str) -> Stamps:
    """Return the stamps of a file, or of a folder's files, by names below it; "" is the file."""
    parts = {each: stamp for each, stamp in there.items() if f"{each}/".startswith(f"{name}/")}
    return {each.removeprefix(name).removeprefix("/"): stamp for each, stamp in parts.items()}
