"""Text reports of comparisons, cross-validations and added classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from shlex import quote

import numpy as np

from carray import metrics
from carray.analysis.compare_pair import PairedComparison
from carray.analysis.compare_trials import ModelComparison
from carray.analysis.cross_validation import CrossValidation
from carray.ensemble.result import AS_IT_IS, CHOSE_EPOCHS
from carray.errors import counted
from carray.incremental.evaluate import AddedClass
from carray.predictions.test_access import access_text
from carray.progress import seconds_text
from carray.records import TrialRecord
from carray.reports.hints import runs_option, shown_path
from carray.reports.study import SHORT_HEADS
from carray.reports.table import interval_text, table

SHOWN_DIFFERENCES = 6
SIDES = (":<4", ":<20", "trials:>7", "train images:>14", "top-1:>27.3f", "log-loss:>27.3f")
MODELS = ("trial:<6", "model:<23", "params:>8")
ALONE = (
    *("trial:<6", "model:<26", "time:>8", "GiB:>7.2f", "images/s:>10,.0f"),
    *("only it was right:>20", "only it was wrong:>20"),
)
REPEATED = (
    *("trial:<20", "{}:>6", "best/epochs:>12"),
    *("log-loss:>10.4f", "cal. loss:>10.4f", "top-1:>8.4f", "macro F1:>9.4f"),
)
FOLDS = (
    *("fold:<6", "trial:<8", "images:>8", "epochs:>8", "best at:>9"),
    *("log-loss:>11.4f", "top-1:>9.4f"),
)
FOLD_SCORES = ("(95 % intervals):<30", "split:<6", "images:>7", "log-loss:>28.4f", "top-1:>28.4f")


def paired_comparison_lines(found: PairedComparison) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    lines = [
        f"{counted(found.images, 'image')} of {found.split} that both have; 95 % intervals",
        "",
    ]
    sides = (("A", found.first), ("B", found.second))
    cells = (
        (letter, one.name, len(one.trials), one.train_images, one.top1, one.log_loss)
        for letter, one in sides
    )
    change = (interval_text(each, "+.3f") for each in (found.top1, found.log_loss))
    p_values = (f"{p:.3g}" for p in (found.top1_p, found.log_loss_p))
    below = (("", "B - A", None, None, *change), ("", "p", None, None, *p_values))
    lines += [
        *table(SIDES, [*cells, *below], spare=("train images", "trials")),
        "",
        f"B is {found.verdict}" + (" than A" if found.verdict != "within noise" else " of A"),
    ]
    for letter, side in sides:
        if side.only_here:
            lines.append(f"in {letter} alone: {counted(side.only_here, 'training image')}")
        if side.left_out:
            own = counted(side.left_out, f"{found.split} image")
            lines.append(f"not counted of {letter}: {own}")
    shown = list(found.differences.items())[:SHOWN_DIFFERENCES]
    lines += [f"{name}: {one!s:.30} in A, {other!s:.30} in B" for name, (one, other) in shown]
    if len(found.differences) > len(shown):
        more = len(found.differences) - len(shown)
        lines.append(counted(more, "more setting differs", "more settings differ"))
    if found.split == "val":
        lines.append(CHOSE_EPOCHS)
    lines.append(AS_IT_IS)
    if len(found.first.trials) == len(found.second.trials) == 1:
        lines.append("one trial each: what another seed would change is not in these intervals")
    return lines


def model_comparison_lines(found: ModelComparison) -> list[str]:
    """Return the table as lines of at most 100 columns, the best on val first."""
    own = found.metric if found.metric != metrics.VAL_TOP1 else metrics.VAL_LOG_LOSS
    value = f"val {SHORT_HEADS.get(own, metrics.SHORT_NAMES[own])}"
    columns = (
        *(*MODELS, f"{value}:>{len(value) + 2}.4f", "top-1:>7.3f"),
        *(f"{found.split} log-loss:>21.3f", f"{found.split} top-1:>21.3f"),
    )
    scores = (
        (
            *(row.trial[-4:], row.model),
            None if row.parameters is None else f"{row.parameters / 1e6:.2f} M",
            row.val_value if own == found.metric else row.val_log_loss,
            *(row.val_top1, row.log_loss, row.top1),
        )
        for row in found.rows
    )
    alone = (
        (
            *(row.trial[-4:], row.model, seconds_text(row.seconds), row.peak_memory_gib),
            *(row.images_per_second, row.only_right, row.only_wrong),
        )
        for row in found.rows
    )
    lines = [
        f"study {found.study}: {len(found.rows)} models on {counted(found.images, 'image')} of "
        f"{found.split}",
        "",
        *table(columns, scores, spare=("params", "top-1", value)),
        "",
        *table(ALONE, alone, spare=("images/s", "GiB", "time")),
    ]
    lines += [
        f"all were right on {counted(found.all_right, 'image')}, all wrong on {found.all_wrong}"
    ]
    lines.append(AS_IT_IS)
    if found.models_that_opened_test:
        lines.append(access_text(found.models_that_opened_test))
    if found.split == "val":
        lines.append(CHOSE_EPOCHS)
    if found.left_out:
        more = counted(found.left_out, "more complete trial")
        lines.append(f"{more}: --all, or --trial and their numbers")
    return lines


def cross_validation_lines(found: CrossValidation) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    folds = (
        (row.fold, row.trial[-4:], row.images, row.epochs, row.best_epoch, row.log_loss, row.top1)
        for row in found.folds
    )
    spread = np.std([row.top1 for row in found.folds], ddof=1) if len(found.folds) > 1 else math.nan
    scores = (
        (
            f"{'>' if row.what == found.rule else ' '} {row.what.replace(' alone', '')}",
            *(row.split, row.images),
            *(row.log_loss, row.top1),
        )
        for row in (found.out_of_fold, *found.ensembles)
    )
    lines = [
        f"{found.backbone} on {len(found.folds)} folds of study {found.study}",
        "",
        *table(FOLDS, folds),
        f"standard deviation of top-1 over folds: {spread:.4f}",
        "",
        *table(FOLD_SCORES, scores, spare=("images",)),
    ]
    lines += ["each fold chose its trial's epoch: out of fold flatters a little", AS_IT_IS]
    if found.models_that_opened_test:
        lines += ["", access_text(found.models_that_opened_test)]
    lines += [f"out-of-fold logits: {found.logits_file}"]
    return [*lines, f"model package: {found.package}"] if found.package else lines


def repeated_lines(records: Sequence[TrialRecord], by: str) -> list[str]:
    """Return a line for each complete trial of one configuration, their mean and deviation.

    Args:
        records: the trials, on folds or with seeds.
        by: `fold` or `seed`, what differs.
    """
    names = (*metrics.LOG_LOSSES, metrics.VAL_TOP1, metrics.VAL_MACRO_F1)
    scores = [[record.best(name) for name in names] for record in records]
    rows = [
        (record.name, getattr(record.config, by), f"{record.best_epoch}/{len(record.epochs)}", *own)
        for record, own in zip(records, scores, strict=True)
    ]
    if len(records) > 1:
        rows.append(("mean", None, "", *np.mean(scores, axis=0)))
        rows.append(("standard deviation", None, "", *np.std(scores, axis=0, ddof=1)))
    columns = [column.format(by) for column in REPEATED]
    return ["", *table(columns, rows, spare=("macro F1", "best/epochs")), CHOSE_EPOCHS]


def added_class_lines(added: AddedClass) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    runs, members = runs_option(added.package.parents[1]), len(added.trials)
    model, head = quote(added.model), f"{added.split}, 95 % intervals"
    rows = (
        ("the new class", added.new_images, added.new, None),
        ("the old classes, before", added.old_images, added.old_before, None),
        ("the old classes, after", added.old_images, added.old_after, None),
        ("change", None, added.change, f"   p = {added.change_p:.3g}"),
    )
    return [
        "",
        f"class {added.name!r}: {counted(added.new_train, 'training image')}, {added.replayed} of "
        f"old classes replayed, {counted(members, 'member')} trained",
        "",
        *table((f"{head}:<36", "images:>8", "top-1:>28.4f", ":<0"), rows),
        f"taken for the new class: {counted(added.taken_for_new, 'image')} of old ones",
        "",
        f"model package: {added.package}",
        "next:",
        f"  carray predict {model} IMAGES{runs}",
        f"  carray errors {model} {shown_path(added.data)}{runs}",
    ]
