"""Reading trials' logits: checked float16 arrays, and their log-probabilities in float32."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property

import numpy as np
import numpy.typing as npt

from carray.errors import RecordError, counted
from carray.files import read_array
from carray.predictions.candidates import Candidate
from carray.records import HELD_SPLITS, Logits, TrialFolder
from carray.typing import Float32s, Labels

CACHED_ROWS = 256  # worked through at once, so that passes over them find them in the cache
EXPONENT = np.uint16(0x7C00)  # of a float16, all ones in what isn't finite
NUM_THREADS = 4  # numpy frees Python's lock; more threads only fight for memory bandwidth


def log_softmax(logits_NC: npt.NDArray[np.floating]) -> Float32s:
    """Return log-probabilities, float32: softmax overflows in float16."""
    log_p = np.empty(logits_NC.shape, np.float32)
    for start in range(0, len(log_p), CACHED_ROWS):
        some = log_p[start : start + CACHED_ROWS]
        some[:] = logits_NC[start : start + CACHED_ROWS]
        some -= some.max(axis=1, keepdims=True)
        some -= np.log(np.exp(some).sum(axis=1, keepdims=True))
    return log_p


def energy_of(logits_NC: npt.NDArray[np.floating]) -> Float32s:
    """Return the energy of each row, minus its log-sum-exp; it is high for what is like nothing.

    Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020.
    """
    logits = np.asarray(logits_NC, np.float32)
    top = logits.max(axis=1)
    energy: Float32s = -(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))
    return energy


def true_log_probability(logits_NC: npt.NDArray[np.floating], labels: Labels) -> Float32s:
    """Return each image's log-probability of its own class, (N,)."""
    found = np.empty(len(labels), np.float32)
    for start in range(0, len(labels), CACHED_ROWS):
        some = slice(start, start + CACHED_ROWS)
        shifted = np.array(logits_NC[some], np.float32)
        shifted -= shifted.max(axis=1, keepdims=True)
        own = shifted[np.arange(len(shifted)), labels[some]]
        np.exp(shifted, out=shifted)
        found[some] = own - np.log(shifted.sum(axis=1))
    return found


def are_finite(logits: Logits) -> bool:
    """Say whether float16 logits hold neither NaN nor infinities: nine times as fast as numpy."""
    return bool(((logits.view(np.uint16) & EXPONENT) != EXPONENT).all())


def read_logits(
    trial: TrialFolder,
    name: str,
    split: str,
    images: int,
    classes: int | None = None,
    *,
    images_of: str = "",
) -> Logits:
    """Return the logits that a trial left on a split, (images, classes).

    Args:
        trial: its folder.
        name: what messages call it.
        split: `val`, `blend` or `test`.
        images: how many there must be.
        classes: how many there must be; None where that isn't known.
        images_of: what messages call the images; default: the split.

    Raises:
        RecordError: there are none, they are of other images or classes, or some aren't finite.
    """
    where = images_of or repr(split)
    try:
        logits = trial.logits(split)
    except RecordError as error:
        raise RecordError(f"{error}{_cure(trial)}") from None
    if logits.ndim != 2 or len(logits) != images:
        fold = ", or it was judged on a fold" if split == "val" and not images_of else ""
        raise RecordError(
            f"trial {name} has logits of shape {logits.shape} on {where}, which has "
            f"{counted(images, 'image')}: they are of other data{fold}"
        )
    is_finite = are_finite(logits)
    if classes is not None and (logits.shape[1] != classes or not is_finite):
        raise RecordError(
            f"trial {name} left logits of shape {logits.shape} on {where}, which must be "
            f"finite and of {classes} classes: they are broken, or of other data"
        )
    if not is_finite:
        raise RecordError(
            f"trial {name} has logits on {where} that aren't finite: move its folder away"
        )
    return logits


def _cure(trial: TrialFolder) -> str:
    """Say what helps where a trial has no logits on a split; "" where their file is broken."""
    if trial.logits_file.exists():
        with suppress(RecordError):
            left = [s for s in HELD_SPLITS if read_array(trial.logits_file, s) is not None]
            return f": its data have no such split; it left some on {' and '.join(left)}"
        return ""
    record = trial.record()
    if not record.state.is_finished():
        return f": it has no epoch to judge yet ({record.state}); wait, or run its command again"
    if not record.epochs:
        return f": it ended before its first epoch was judged ({record.state}); name another trial"
    return (
        f": {trial.logits_file.name} was taken away; put it back, or train the configuration again "
        "under another --study"
    )


class SplitPredictions:
    """Predictions of some trials on the images of one split.

    Args:
        candidates: trials whose logits are aligned with `labels`.
        split: `val`, `blend` or `test`.
        labels: class index of each image of the split, in the manifest's order.
    """

    def __init__(self, candidates: Sequence[Candidate], split: str, labels: Labels) -> None:
        self.candidates, self.split, self.labels = tuple(candidates), split, labels
        self._log_p: dict[int, Float32s] = {}
        self._classes: dict[int, tuple[str, int]] = {}  # 0: the first trial read, its classes

    def log_p(self, member: int) -> Float32s:
        """Return one trial's log-probabilities, (images, classes); kept once read."""
        if member not in self._log_p:
            self._log_p[member] = log_softmax(self._logits(member))
        return self._log_p[member]

    def beside(self, labels: Labels) -> SplitPredictions | None:
        """Return what the same trials said of `val`, whose labels these are.

        A temperature is fitted to both. None where this is `val`, there is none, or a trial was
        judged on a fold in its place.
        """
        on_folds = any(each.record.config.fold is not None for each in self.candidates)
        if self.split == "val" or on_folds or not len(labels):
            return None
        return SplitPredictions(self.candidates, "val", labels)

    @cached_property
    def true_log_p(self) -> Float32s:
        """Every trial's log-probability of the right class, (trials, images).

        It is all that log-loss needs, so the rest is read and forgotten.
        """
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            rows = pool.map(
                lambda member: true_log_probability(self._logits(member), self.labels),
                range(len(self.candidates)),
            )
            return np.stack(list(rows))

    def preload(self, members: Sequence[int]) -> None:
        """Read some trials' log-probabilities, side by side."""
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            list(pool.map(self.log_p, dict.fromkeys(members)))

    def _logits(self, member: int) -> Logits:
        candidate = self.candidates[member]
        name = candidate.record.name
        logits = read_logits(candidate.folder, name, self.split, len(self.labels))
        self._check_classes(name, logits.shape[1])
        return logits

    def _check_classes(self, trial: str, classes: int) -> None:
        first, expected = self._classes.setdefault(0, (trial, classes))
        if classes != expected:
            raise RecordError(
                f"trial {trial} has logits of {classes} classes on {self.split!r} and {first} of "
                f"{expected}: they weren't trained on the same data"
            )
        if len(self.labels) and int(self.labels.max()) >= classes:
            raise RecordError(
                f"trial {trial} has logits of {classes} classes on {self.split!r}, whose labels "
                f"go up to class {int(self.labels.max())}: they are of other data"
            )
