"""An ensemble as lines of at most 100 columns: members, rules, and the honest number."""

from __future__ import annotations

import math
from pathlib import Path

from carray.ensemble.result import Ensemble
from carray.ensemble.tta import HURTS
from carray.inference.predict import SHOWN, PredictedFile
from carray.predictions.statistics import Comparison, Interval
from carray.predictions.test_access import access_text
from carray.reports.hints import runs_option

WIDTH = 100


def ensemble_lines(ensemble: Ensemble) -> list[str]:
    """Return everything that a person should know before using the ensemble."""
    lines = [
        f"ensemble {ensemble.name} of study {ensemble.study}, {ensemble.seconds:.1f} s",
        "",
        *_member_lines(ensemble),
        "",
        *_rule_lines(ensemble),
    ]
    if ensemble.tta_rows:
        lines += ["", *_tta_lines(ensemble)]
    if ensemble.test is not None:
        lines += ["", *_test_lines(ensemble, ensemble.test)]
    lines += ["", ensemble.verdict, *(f"note: {note}" for note in ensemble.notes)]
    if ensemble.package is not None:
        lines += ["", f"model package: {ensemble.package}"]
        lines += [f"in MLflow: {ensemble.model_uri}"] if ensemble.model_uri else []
        lines += ["next:", predict_hint(ensemble.package)]
    return [part for line in lines for part in wrapped(line)]


def predict_hint(package: Path) -> str:
    """Return the command that asks a model package."""
    runs = runs_option(package.parents[1])
    return f"  carray predict {package.name} IMAGES --out predictions.csv{runs}"


def wrapped(line: str) -> list[str]:
    """Cut a sentence into lines of at most 100 columns; commands and paths are left alone."""
    import textwrap

    if len(line) <= WIDTH or " " not in line or line.startswith("  carray "):
        return [line]
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_long_words=False)


def _member_lines(ensemble: Ensemble) -> list[str]:
    judged = ensemble.judged_on.partition(",")[0]
    has_own = judged != "val"  # else the last column would say the same again
    lines = [
        f"{'member':<8}{'backbone':<32}{'state':<10}{'weight':>8}{'val loss':>11}{'val top-1':>11}"
        + f"{judged + ' loss':>12}" * has_own
    ]
    for member in ensemble.members:
        weight = f"{member.weight:.3f}" if member.weight else "-"
        lines.append(
            f"{member.trial.rpartition('/')[2]:<8}{member.backbone[:30]:<32}{member.state:<10}"
            f"{weight:>8}{_number(member.val_log_loss):>11}{_number(member.val_top1):>11}"
            + f"{_number(member.blend_log_loss):>12}"
            * has_own
        )
    return lines


def _rule_lines(ensemble: Ensemble) -> list[str]:
    head = f"rule, judged on {ensemble.judged_images} images of {ensemble.judged_on}"
    lines = [f"{head:<48}{'members':>8}{'temperature':>13}{'log-loss':>10}{'top-1':>9}"]
    for rule in ensemble.rules:
        name = f"{'> ' if rule.chosen else '  '}{rule.rule}"
        temperature = f"{rule.temperature:.2f}" if rule.temperature != 1 else "-"
        lines.append(
            f"{name:<48}{rule.members:>8}{temperature:>13}{rule.log_loss:>10.4f}{rule.top1:>9.4f}"
        )
    return lines


def _tta_lines(ensemble: Ensemble) -> list[str]:
    """Say what each set of views was worth, and which were refused."""
    head = f"views, judged on {ensemble.judged_images} images of {ensemble.judged_on}"
    lines = [f"{head:<42}{'views':>6}{'log-loss':>10}{'top-1':>8}{'gain (95 % for all sets)':>28}"]
    for row in ensemble.tta_rows:
        mean = "" if row.name == "none" else (", soft" if row.space == "probability" else ", logit")
        name = f"{'> ' if row.chosen else '  '}{row.name}{mean}"
        gain = "" if row.name == "none" else _interval(row.gain)
        verdict = "" if row.name == "none" else row.verdict
        lines.append(
            f"{name:<32}{verdict:<10}{row.views:>6}{row.log_loss:>10.4f}{row.top1:>8.4f}{gain:>28}"
        )
    return [*lines, _tta_verdict(ensemble)]


def _tta_verdict(ensemble: Ensemble) -> str:
    if ensemble.tta is not None:
        return f"The model looks at every image through {ensemble.tta.label}."
    worst = max(ensemble.tta_rows, key=lambda row: row.log_loss)
    sets = len(ensemble.tta_rows) - 1
    told = (
        f"No set of views is shown to help by more than the best of {sets} does by chance: the "
        "model looks at every image once"
    )
    if worst.verdict == HURTS:
        plain = ensemble.tta_rows[0]
        told += (
            f" ({worst.name} would hurt: log-loss {plain.log_loss:.4f} -> {worst.log_loss:.4f}, "
            f"top-1 {plain.top1:.4f} -> {worst.top1:.4f})"
        )
    return told + "."


def _test_lines(ensemble: Ensemble, test: Comparison) -> list[str]:
    single = ensemble.single
    head = f"test, {test.images} images (95 % interval)"
    rows = (
        (f"best single, {single.trial.rpartition('/')[2]}", test.single.log_loss, test.single.top1),
        ("ensemble", test.ensemble.log_loss, test.ensemble.top1),
        ("gain", test.log_loss_gain, test.top1_gain),
    )
    lines = [f"{head:<36}{'log-loss':>26}{'top-1':>26}"]
    lines += [f"{name:<36}{_interval(loss):>26}{_interval(top1):>26}" for name, loss, top1 in rows]
    p_loss, p_top1 = (f"p = {p:.3g}" for p in (test.log_loss_p, test.top1_p))
    lines.append(f"{'paired test (bootstrap; McNemar)':<36}{p_loss:>26}{p_top1:>26}")
    only = (test.only_ensemble_right, test.only_single_right)
    lines.append(f"right where the other is wrong: ensemble {only[0]}, single trial {only[1]}")
    if ensemble.models_that_opened_test > 1:
        lines.append(
            f"{access_text(ensemble.models_that_opened_test)}: the more look, the less it says"
        )
    return lines


def _interval(found: Interval) -> str:
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _shown(column: str, value: str) -> str:
    """Return a cell as a person reads it: the end of a long path, a probability's first digits."""
    return f"{float(value):.3f}" if value and column.startswith("probability_") else value[-40:]


def prediction_lines(done: PredictedFile) -> list[str]:
    """Say what was written, with its first rows and every kind of trouble."""
    lines = [f"{done.images} images, {done.seconds:.1f} s: {done.out}", ""]
    shown = [
        [_shown(*cell) for cell in row.items() if cell[0] != "error"] for row in done.rows[:SHOWN]
    ]
    width = max((len(name) for name, *_ in shown), default=0)
    for name, *rest in shown:
        line = f"  {name:<{width}}"
        for value in filter(None, rest):
            if len(line) + len(value) > WIDTH - 5:
                line += "  …"
                break
            line += f"  {value}"
        lines.append(line)
    more = len(done.rows) - SHOWN
    lines += [f"  and {more} more"] if more > 0 else []
    for name, why in list(done.unreadable.items())[:SHOWN]:
        lines += wrapped(f"unreadable: {name} ({why})")
    more = len(done.unreadable) - SHOWN
    lines += [f"and {more} more unreadable images"] if more > 0 else []
    return lines + [part for note in done.notes for part in wrapped(f"note: {note}")]
