"""Comparisons, cross-validations and added classes as lines of text."""

from __future__ import annotations

import math

import numpy as np

from carray.analysis.compare_pair import PairedComparison, Side
from carray.analysis.compare_trials import ModelComparison
from carray.analysis.cross_validation import CrossValidation
from carray.ensemble.result import CHOSE_EPOCHS
from carray.incremental.evaluate import AddedClass
from carray.predictions.statistics import Interval
from carray.predictions.test_access import access_text
from carray.reports.hints import runs_option, shown_path

SHOWN_DIFFERENCES = 6


def paired_comparison_lines(found: PairedComparison) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    lines = [f"{found.images} images of {found.split} that both have; 95 % intervals", ""]
    lines += [
        f"{'':<4}{'':<20}{'trials':>7}{'train images':>14}{'top-1':>27}{'log-loss':>27}",
        *(_side_line(letter, side) for letter, side in (("A", found.first), ("B", found.second))),
        f"{'B - A':<45}{_told(found.top1, True):>27}{_told(found.log_loss, True):>27}",
        f"{'p':<45}{_p(found.top1_p):>27}{_p(found.log_loss_p):>27}",
        "",
        f"B is {found.verdict}" + (" than A" if found.verdict != "within noise" else " of A"),
    ]
    for letter, side in (("A", found.first), ("B", found.second)):
        if side.only_here:
            lines.append(f"{side.only_here} training images are in {letter} alone")
        if side.left_out:
            lines.append(f"{side.left_out} {found.split} images of {letter} don't count")
    shown = list(found.differences.items())[:SHOWN_DIFFERENCES]
    lines += [f"{name}: {one!s:.30} in A, {other!s:.30} in B" for name, (one, other) in shown]
    if len(found.differences) > len(shown):
        lines.append(f"{len(found.differences) - len(shown)} more settings differ")
    if found.split == "val":
        lines.append(CHOSE_EPOCHS)
    if len(found.first.trials) == len(found.second.trials) == 1:
        lines.append("one trial each: what another seed would change is not in these intervals")
    return lines


def _side_line(letter: str, side: Side) -> str:
    return (
        f"{letter:<4}{side.name[:19]:<20}{len(side.trials):>7}{side.train_images:>14}"
        f"{_told(side.top1):>27}{_told(side.log_loss):>27}"
    )


def _told(found: Interval, is_change: bool = False) -> str:
    sign = "+" if is_change else ""
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def _p(value: float) -> str:
    return f"{value:.3g}"


def model_comparison_lines(found: ModelComparison) -> list[str]:
    """Return the table as lines of at most 100 columns, the best on val first."""
    head = (
        f"{'trial':<6}{'model':<23}{'params':>8}{'val loss':>10}{'top-1':>7}"
        f"{found.split + ' log-loss':>22}{found.split + ' top-1':>22}"
    )
    lines = [
        f"study {found.study}: {len(found.rows)} models on {found.images} images of {found.split}",
        "",
        head,
    ]
    for row in found.rows:
        loss, top1 = (
            f"{i.value:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in (row.log_loss, row.top1)
        )
        lines.append(
            f"{row.trial[-4:]:<6}{row.model[:22]:<23}{_millions(row.parameters):>8}"
            f"{row.val_log_loss:>10.4f}{row.val_top1:>7.3f}{loss:>22}{top1:>22}"
        )
    alone = f"{'only it was right':>20}{'only it was wrong':>20}"
    lines += ["", f"{'trial':<6}{'model':<40}{'images/s':>12}{alone}"]
    lines += [
        f"{row.trial[-4:]:<6}{row.model[:38]:<40}{_speed_text(row.images_per_second):>12}"
        f"{row.only_right:>20}{row.only_wrong:>20}"
        for row in found.rows
    ]
    lines += [f"all were right on {found.all_right} images, all wrong on {found.all_wrong}"]
    if found.models_that_opened_test:
        lines.append(access_text(found.models_that_opened_test))
    if found.split == "val":
        lines.append(CHOSE_EPOCHS)
    if found.left_out:
        what = "trial" if found.left_out == 1 else "trials"
        lines.append(f"{found.left_out} more complete {what}: --all, or --trials 3,7")
    return lines


def _speed_text(speed: float) -> str:
    return "" if math.isnan(speed) else f"{speed:,.0f}"


def _millions(parameters: int | None) -> str:
    return "" if parameters is None else f"{parameters / 1e6:.2f} M"


def cross_validation_lines(found: CrossValidation) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    lines = [
        f"{found.backbone} on {len(found.folds)} folds of study {found.study}",
        "",
        f"{'fold':<6}{'trial':<8}{'images':>8}{'epochs':>8}{'best at':>9}{'log-loss':>11}"
        f"{'top-1':>9}",
    ]
    lines += [
        f"{row.fold:<6}{row.trial[-4:]:<8}{row.images:>8}{row.epochs:>8}{row.best_epoch:>9}"
        f"{row.log_loss:>11.4f}{row.top1:>9.4f}"
        for row in found.folds
    ]
    spread = np.std([row.top1 for row in found.folds], ddof=1) if len(found.folds) > 1 else math.nan
    lines += [f"standard deviation of top-1 over folds: {spread:.4f}", ""]
    head = f"{'(95 % intervals)':<30}{'split':<6}{'images':>7}"
    lines += [f"{head}{'log-loss':>28}{'top-1':>28}"]
    for row in (found.out_of_fold, *found.ensembles):
        chosen = "> " if row.what == found.rule else "  "
        loss, top1 = (
            f"{i.value:.4f} [{i.low:.4f}, {i.high:.4f}]" for i in (row.log_loss, row.top1)
        )
        lines.append(f"{chosen + row.what:<30}{row.split:<6}{row.images:>7}{loss:>28}{top1:>28}")
    lines += ["each fold chose its trial's epoch: out of fold flatters a little"]
    if found.models_that_opened_test:
        lines += ["", access_text(found.models_that_opened_test)]
    lines += [f"out-of-fold logits: {found.logits_file}"]
    return [*lines, f"model package: {found.package}"] if found.package else lines


def added_class_lines(added: AddedClass) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    runs = runs_option(added.package.parents[1])
    head = f"{added.split}, 95 % intervals"
    return [
        "",
        f"class {added.name!r}: {added.new_train} training images, {added.replayed} of the old "
        f"classes replayed, {len(added.trials)} members trained",
        "",
        f"{head:<36}{'images':>8}{'top-1':>28}",
        f"{'the new class':<36}{added.new_images:>8}{_four_digits(added.new):>28}",
        f"{'the old classes, before':<36}{added.old_images:>8}{_four_digits(added.old_before):>28}",
        f"{'the old classes, after':<36}{added.old_images:>8}{_four_digits(added.old_after):>28}",
        f"{'change':<44}{_four_digits(added.change):>28}   p = {added.change_p:.3g}",
        f"{added.taken_for_new} images of old classes are taken for the new one",
        "",
        f"model package: {added.package}",
        "next:",
        f"  carray predict {added.model} IMAGES{runs}",
        f"  carray errors {added.model} {shown_path(added.data)}{runs}",
    ]


def _four_digits(found: Interval) -> str:
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
