"""The disk budget: logits stay for ever, weights of the best trials stay while there is room.

Checkpoints of ended trials, which a longer study goes on from, go before any weights do.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from carray.errors import RecordError
from carray.files import folder_bytes, remove
from carray.records import StudyFolder, StudyRecord, TrialFolder
from carray.runs_folder import RunsFolder
from carray.typing import GIB

ReadT = TypeVar("ReadT")
LOOK_SHARE = 0.1  # of the trials that are there: after as many more, all are looked at again


class DiskBudget:
    """Keeps all studies' weights together within a budget; safe to call from several threads.

    An ended trial's weights don't change, so its end costs a look at its own folder. What others
    write, another study's driver or trials that run, is seen whenever all folders are looked at: at
    first, and after each tenth more trials. What others delete is seen before anything is deleted.
    """

    def __init__(self, runs: RunsFolder, budget_gib: float, keep_best: int) -> None:
        self._runs, self._bytes, self._keep_best = runs, budget_gib * GIB, keep_best
        self._lock = threading.Lock()
        self._sizes: dict[Path, int] = {}  # of weights, by the trial's folder
        self._checkpoints: dict[Path, int] = {}  # and of their checkpoints
        self._ended: dict[Path, tuple[str, tuple[bool, float]]] = {}  # name, goodness: read once
        self._may_go_on: set[Path] = set()  # those of them that a budget stopped, which may go on
        self._seen = self._unseen = 0  # trials when all were looked at, and ends since

    def enforce(self, ended: TrialFolder) -> list[str]:
        """Delete weights until the rest fits, now that a trial has ended; return whose went.

        Before them go checkpoints, the worst trials' first, of which nothing is said. Every study's
        `keep_best` complete trials come last. Running trials are never touched, nor ended ones
        whose logits are still to be written, nor those whose record can't be read. An ensemble's
        members are safe whatever happens: their model package holds copies.
        """
        with self._lock:
            self._unseen += 1
            self._look(ended)
            if self._unseen > LOOK_SHARE * self._seen:
                self._look_at_all()
            if self._over() > 0:
                for path in list(self._sizes):
                    self._look(TrialFolder(path))
            return self._delete()

    def _over(self) -> float:
        return sum(self._sizes.values()) + sum(self._checkpoints.values()) - self._bytes

    def _delete(self) -> list[str]:
        over, gone = self._over(), []
        ranked = sorted(self._ranked() if over > 0 else [], key=lambda row: row[0], reverse=True)
        for _, folder in ranked:
            if over > 0 and folder.path in self._checkpoints:
                over -= self._checkpoints.pop(folder.path)
                remove(folder.checkpoint)
        for rank, folder in ranked:
            if over <= 0 or rank < self._keep_best:
                break
            over -= self._sizes.pop(folder.path)
            folder.weights_file.unlink(missing_ok=True)
            gone.append(self._ended[folder.path][0])
        return gone

    def _look(self, folder: TrialFolder) -> None:
        try:
            self._sizes[folder.path] = folder.weights_file.stat().st_size
        except FileNotFoundError:
            self._sizes.pop(folder.path, None)
        if size := folder_bytes(folder.checkpoint):
            self._checkpoints[folder.path] = size
        else:
            self._checkpoints.pop(folder.path, None)

    def _look_at_all(self) -> None:
        folders = [TrialFolder(path) for path in self._runs.path.glob("studies/*/trials/*")]
        self._seen, self._unseen = len(folders), 0
        self._sizes.clear()
        self._checkpoints.clear()
        for folder in folders:
            self._look(folder)

    def _ranked(self) -> list[tuple[int, TrialFolder]]:
        """Return (rank within its study, folder) of every ended trial that has weights."""
        by_study: dict[Path, list[Path]] = defaultdict(list)
        for path in sorted(self._sizes):
            by_study[path.parents[1]].append(path)
        rows = []
        for folder, paths in by_study.items():
            study = _readable(StudyFolder(folder).record)
            ended = [path for path in paths if study and self._has_ended(study, path)]
            ended.sort(key=lambda path: self._ended[path][1])
            rows += [(rank, TrialFolder(path)) for rank, path in enumerate(ended)]
        return rows

    def _has_ended(self, study: StudyRecord, path: Path) -> bool:
        folder = TrialFolder(path)
        if path in self._may_go_on:
            del self._ended[path]
            self._may_go_on.discard(path)
        if path not in self._ended and folder.logits_file.exists():
            record = _readable(folder.record)
            if record and record.state.is_finished():
                value = study.objective.key_of(record)  # complete trials before all others
                self._ended[path] = record.name, (record.state != "complete", value)
                if record.stopped_by_budget:
                    self._may_go_on.add(path)
        return path in self._ended


def _readable(read: Callable[[], ReadT]) -> ReadT | None:
    try:
        return read()
    except RecordError:
        return None
