"""Ties with the best, seeds of one configuration, and luck that a split can't repeat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carray import metrics
from carray.analysis.leaders import leaders_of
from carray.config import build_config
from carray.predictions.logits import read_logits
from carray.records import StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.reports.leaders import behind_text, leaders_lines
from carray.reports.listing import leaderboard_lines

CLASSES, IMAGES = 4, 120
LABELS = np.arange(IMAGES) % CLASSES


def study(root: Path, metric: str = metrics.VAL_LOG_LOSS) -> StudyFolder:
    folder = StudyFolder(root / "studies" / "s")
    folder.path.mkdir(parents=True)
    folder.write_labels({"val": LABELS, "blend": LABELS, "test": LABELS})
    StudyRecord(name="s", state="complete", metric=metric).write(folder.record_file)
    return folder


def add(folder: StudyFolder, number: int, skills: tuple[float, float], lr: float = 1e-3) -> None:
    """Write a trial that knows so much of the classes on val and on blend."""
    split_logits = {}
    for split, skill in zip(("val", "blend"), skills, strict=True):
        logits = np.random.default_rng([number, len(split)]).normal(size=(IMAGES, CLASSES))
        logits[np.arange(IMAGES), LABELS] += skill
        split_logits[split] = logits.astype(np.float16)
    files = folder.trial(number)
    files.path.mkdir(parents=True)
    files.write_logits(split_logits)
    val = split_logits["val"].astype(np.float64)
    own = val[np.arange(IMAGES), LABELS] - np.log(np.exp(val).sum(axis=1))
    top1 = float((val.argmax(axis=1) == LABELS).mean())
    row = {name: float(-own.mean()) for name in metrics.LOG_LOSSES} | {metrics.VAL_TOP1: top1}
    config = build_config({"optimizer.lr": lr, "seed": number})
    record = TrialRecord.begin("s", number, config, "hash")
    ended = {"state": TrialState.COMPLETE, "epochs": (row,), "best_epoch": 1}
    files.write_record(record.model_copy(update=ended))


@pytest.mark.parametrize("metric", [*metrics.LOG_LOSSES, metrics.VAL_TOP1])
def test_what_images_cannot_tell_apart_is_a_tie(tmp_path: Path, metric: str) -> None:
    folder = study(tmp_path, metric)
    for number, skill in enumerate((2.0, 2.0, 0.3)):
        add(folder, number, (skill, skill), lr=1e-3 * (number + 1))
    found = leaders_of(folder)
    assert found is not None and found.compared_by == metric
    second, last = found.behind
    assert (last, found.ties()) == ("s/0002", [second])
    assert found.behind[last].low > 0
    assert behind_text(found, found.best) == "best"
    assert behind_text(found, second).endswith("] =")
    assert leaders_lines(found)[0].startswith("1 of 2 other trials can't be told from the best by")
    text = "\n".join(leaderboard_lines(folder, 5))
    assert "behind the best" in text and max(map(len, text.splitlines())) <= 80


def test_an_overconfident_trial_is_compared_at_its_temperature(tmp_path: Path) -> None:
    folder = study(tmp_path, metrics.VAL_CALIBRATED_LOG_LOSS)
    for number in range(2):
        add(folder, number, (2.0, 2.0), lr=1e-3 * (number + 1))
    files = folder.trial(1)
    loud = {name: read_logits(files, "s/0001", name, IMAGES) * 8 for name in ("val", "blend")}
    before = leaders_of(folder)
    files.write_logits({name: logits.astype(np.float16) for name, logits in loud.items()})
    after = leaders_of(folder)
    assert before is not None and after is not None
    other = next(iter(before.behind))
    assert after.behind[other].value == pytest.approx(before.behind[other].value, abs=0.02)


def test_seeds_of_one_configuration_are_put_together(tmp_path: Path) -> None:
    folder = study(tmp_path)
    for number, lr in enumerate((1e-3, 2e-3, 1e-3)):
        add(folder, number, (1.0, 1.0), lr)
    found = leaders_of(folder)
    assert found is not None
    (repeated,) = found.repeated
    assert set(repeated.trials) == {"s/0000", "s/0002"}
    values = [folder.trial(number).record().best(metrics.VAL_LOG_LOSS) for number in (0, 2)]
    assert repeated.mean == pytest.approx(np.mean(values))
    assert repeated.deviation == pytest.approx(np.std(values, ddof=1))


def test_a_best_that_was_lucky_on_val_is_told(tmp_path: Path) -> None:
    folder = study(tmp_path)
    add(folder, 0, (2.0, 1.0))
    for number in range(1, 6):
        add(folder, number, (1.0, 1.0), lr=1e-3 * (number + 1))
    found = leaders_of(folder)
    assert found is not None and found.optimism is not None
    assert found.optimism.blend > found.optimism.val
    assert found.optimism.value > 2 * found.optimism.deviation
    assert any(line.startswith("selection optimism: ") for line in leaders_lines(found))


def test_one_trial_has_none_to_be_compared_with(tmp_path: Path) -> None:
    folder = study(tmp_path)
    add(folder, 0, (1.0, 1.0))
    assert leaders_of(folder) is None
