"""`StudyMirror`: carries what a study leaves to its URL, while it runs and without slowing it.

Small files go in one queue, weights and checkpoints in others. Order makes any moment one that
another machine can go on from: the study's record is there before anybody hears of the study,
Optuna's study before a record that names a trial of it, weights before the checkpoint that counts
on them. The record of an ended trial comes last; until then it is there as of a running one.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from carray.errors import RecordError, UploadError, counted, some_of
from carray.records import StudyFolder, StudyRecord, TrialFolder, TrialRecord
from carray.remote_studies import (
    checkpoint_archive,
    is_ours,
    lease_of,
    mark_ours,
    pull_study,
    pull_unfinished,
    remove_strays,
)
from carray.search.waiting import waiting_for
from carray.storage.lease import Holder
from carray.storage.mirror import Mirror, mirror_of
from carray.storage.remote import RemoteFolder
from carray.storage.uploads import Uploads
from carray.tracking import Tracker

WEIGHT_QUEUES = 4  # so many trials' weights go up at once
ATTEMPTS = 2  # at a request: a queue tries again sooner than those that wait for each other
RENAME_SECONDS = 0.05
TRIES = 5  # at a checkpoint that is replaced while it is looked at
ASIDE = ".upload-"
NAMED = 5  # missing files that a sentence names


class StudyMirror(Tracker):
    """Mirrors one study as its observer.

    Args:
        mirror: the runs folder's.
        folder: the study's.
        has_optuna_file: whether Optuna's study is a file in `folder`, not a database elsewhere.
        say: is told when uploads fail, and when they go on.
    """

    def __init__(
        self,
        mirror: Mirror,
        folder: StudyFolder,
        has_optuna_file: bool,
        say: Callable[[str], None],
    ) -> None:
        self._mirror, self._folder, self._has_optuna_file = mirror, folder, has_optuna_file
        self._remote = RemoteFolder(mirror.remote.url, ATTEMPTS)
        failing: set[str] = set()
        self._small = Uploads("records", say, failing)
        names = [f"weights-{number}" for number in range(WEIGHT_QUEUES)]
        self._large = [Uploads(name, say, failing) for name in names]
        self._optuna = threading.Lock()  # an older copy must not replace a newer one
        self._sent: dict[int, tuple[int, int]] = {}  # which weights of a trial are there
        self._records = threading.Lock()  # a running trial's must not replace the ended one's
        self._ended: set[int] = set()  # trials whose last record is there
        self._missing: list[str] = []
        self._taken = ""
        self.on_taken: Callable[[], None] = lambda: None

    def study_started(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Carry what the study begins with, and what an earlier call couldn't.

        A record that the URL lacks is there once this returns: it tells whose runs a tracking store
        has, if this machine is lost.
        """
        for file in files:
            self._put(file)
        seen = self._mirror.remote.files(self._mirror.name_of(self._folder.path))
        if (name := self._mirror.name_of(self._folder.record_file)) not in seen:
            self._mirror.remote.write(name, study.text.encode())
        for trial, record in self._folder.trials():
            self._catch_up(trial, record, {name: stamp.size for name, stamp in seen.items()})

    def trial_started(self, record: TrialRecord) -> None:
        """Carry its record, after Optuna's study."""
        with self._records:
            self._ended.discard(record.number)  # one that a budget stopped goes on
        self._put(self._folder.record_file)
        self._put_optuna()
        self._put_record(record)

    def epoch_ended(self, record: TrialRecord) -> None:
        """Carry its record and its checkpoint."""
        self._put_record(record)
        self._put_aside(record, lambda: self._send_checkpoint(record.number))

    def trial_ended(self, record: TrialRecord, folder: TrialFolder) -> None:
        """Carry all that it left; its checkpoint goes."""
        self._put_optuna()
        self._put_aside(record, lambda: self._send_ended(record.number))

    def study_ended(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Carry how the study stands."""
        for file in (*files, self._folder.probe_file):
            self._put(file)

    def weights_deleted(self, name: str) -> None:
        """Delete a trial's weights, `STUDY/0007`, at the URL too."""
        study, _, number = name.rpartition("/")
        at_url = f"studies/{study}/trials/{number}/best.safetensors"
        queue = self._large[int(number) % WEIGHT_QUEUES]
        queue.put(f"{at_url} (to be deleted)", lambda: self._remote.remove(at_url))

    def taken(self, by: Holder) -> None:
        """Carry nothing more: another machine has gone on with the study."""
        self._taken = f"{by.host} has gone on with study {self._folder.path.name!r} meanwhile"
        told = f"{self._taken}: what is found here from now on stays on this machine"
        for queue in (self._small, *self._large):
            queue.drop(told if queue is self._small else "")
        self.on_taken()

    def close(self) -> None:
        """Wait until all is carried, or the URL has refused everything for a while."""
        queues = (*self._large, self._small)  # the large ones leave it something
        self._missing = [name for queue in queues for name in queue.close()]
        self._mirror.forget()

    def check(self) -> None:
        """Refuse to call a study done whose results aren't at its URL.

        Raises:
            UploadError: some aren't; they are named, and where they lie.
        """
        if self._taken:
            raise UploadError(f"{self._taken}: what was found here since is in {self._folder.path}")
        if self._missing:
            raise UploadError(
                f"{self._mirror.remote} lacks {counted(len(self._missing), 'file')} of study "
                f"{self._folder.path.name!r} ({some_of(self._missing, NAMED)}): what it lacks lies "
                f"in {self._folder.path}, and the same command carries it there"
            )

    def _catch_up(self, trial: TrialFolder, record: TrialRecord, sizes: dict[str, int]) -> None:
        files = [trial.record_file, trial.logits_file, trial.weights_file]
        there = [sizes.get(self._mirror.name_of(file)) for file in files]
        here = [file.stat().st_size if file.exists() else None for file in files]
        if all(own in (None, other) for own, other in zip(here, there, strict=True)):
            return
        if record.state.is_finished():
            self.trial_ended(record, trial)
        else:
            self.epoch_ended(record)

    def _put(self, file: Path) -> None:
        name = self._mirror.name_of(file)
        self._small.put(name, lambda: self._remote.put(file, name))

    def _put_record(self, record: TrialRecord) -> None:
        """Carry a running trial's record; an ended one's comes after all that it names."""
        name = self._mirror.name_of(self._folder.trial(record.number).record_file)

        def send() -> None:
            with self._records:
                if record.number not in self._ended:
                    self._remote.write(name, record.text.encode())

        self._small.put(name, send)

    def _put_aside(self, record: TrialRecord, task: Callable[[], None]) -> None:
        name = self._mirror.name_of(self._folder.trial(record.number).checkpoint)
        self._large[record.number % WEIGHT_QUEUES].put(name, task)

    def _put_optuna(self) -> None:
        if self._has_optuna_file:
            name = self._mirror.name_of(self._folder.optuna_file)
            self._small.put(name, self._send_optuna)

    def _send_optuna(self) -> None:
        file = self._folder.optuna_file
        if not self._has_optuna_file or not file.exists():
            return
        with self._optuna, TemporaryDirectory(prefix="carray-optuna-") as aside:
            copy = Path(aside) / "optuna.db"
            with (
                closing(sqlite3.connect(file)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
            self._remote.put(copy, self._mirror.name_of(file))

    def _send_checkpoint(self, number: int) -> None:
        """Send what the next epoch needs, as it is at one moment: lanes go on meanwhile."""
        trial = self._folder.trial(number)
        with TemporaryDirectory(dir=self._folder.path, prefix=ASIDE) as aside:
            checkpoint, weights = Path(aside) / "checkpoint", Path(aside) / "weights"
            link_folder(trial.checkpoint, checkpoint)
            _link(trial.weights_file, weights)  # of this checkpoint or a later one
            self._send_weights(number, weights)
            self._remote.put_folder(checkpoint, self._mirror.name_of(checkpoint_archive(trial)))

    def _send_ended(self, number: int) -> None:
        trial, remote = self._folder.trial(number), self._remote
        archive = self._mirror.name_of(checkpoint_archive(trial))
        with suppress(FileNotFoundError):  # a disk budget may delete it at any time
            self._send_weights(number, trial.weights_file)
        with suppress(FileNotFoundError):
            remote.put(trial.logits_file, self._mirror.name_of(trial.logits_file))
        if may_go_on := trial.checkpoint.exists():
            with suppress(FileNotFoundError):
                remote.put_folder(trial.checkpoint, archive)
        self._send_optuna()
        with self._records:
            remote.put(trial.record_file, self._mirror.name_of(trial.record_file))
            if trial.record().state.is_finished():
                self._ended.add(number)
        if not may_go_on:
            remote.remove(archive)

    def _send_weights(self, number: int, file: Path) -> None:
        found = file.stat()
        version = (found.st_ino, found.st_mtime_ns)
        if self._sent.get(number) != version:
            name = self._mirror.name_of(self._folder.trial(number).weights_file)
            self._remote.put(file, name)
            self._sent[number] = version


@contextmanager
def mirrored_study(
    folder: StudyFolder, has_optuna_file: bool, say: Callable[[str], None]
) -> Iterator[StudyMirror | None]:
    """Hold a study against other machines, with what they left of it; None without a URL.

    Whoever adds trials elsewhere is waited for some seconds: one that has gone is succeeded.

    Raises:
        RecordError: one is at work.
        StorageError: the URL can't be reached or refuses.
    """
    mirror = mirror_of(folder.path)
    if mirror is None:
        yield None
        return
    lease, ours = lease_of(mirror, folder), is_ours(mirror, folder)
    before = lease.holder()
    if before and not ours:
        with waiting_for(f"a sign of life of {before.host}, which ran this study", say):
            if lease.is_alive(before):
                raise RecordError(
                    f"study {folder.path.name!r} is being run by {before.host}; wait for it, or "
                    "name another study with --study"
                )
        mirror.forget()
        pull_study(mirror, folder)
        pull_unfinished(mirror, folder, has_optuna_file=has_optuna_file)
    for left in folder.path.glob(f"{ASIDE}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    observer = StudyMirror(mirror, folder, has_optuna_file, say)
    with lease.held(observer.taken) as holder:
        mark_ours(folder, holder.id)
        if before and not ours:
            remove_strays(mirror, folder)
        yield observer


def link_folder(folder: Path, into: Path) -> None:
    """Link a folder's files as they are at one moment; another may take its place meanwhile.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    for _ in range(TRIES):
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
        try:
            before = folder.stat().st_ino
            for file in folder.iterdir():
                _link(file, into / file.name)
            if folder.stat().st_ino == before:
                return
        except FileNotFoundError:  # between two renames, or gone
            time.sleep(RENAME_SECONDS)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def _link(file: Path, into: Path) -> None:
    try:
        os.link(file, into)
    except FileNotFoundError:
        raise
    except OSError:  # a disk without links
        shutil.copyfile(file, into)
