"""Text report of an ensemble: its members, the rules tried, and its scores on the test split."""

from __future__ import annotations

from carray import metrics
from carray.ensemble.budget import Budget
from carray.ensemble.result import ALONE, Ensemble
from carray.ensemble.tta import HURTS
from carray.errors import counted
from carray.inference.predict import SHOWN, PredictedFile
from carray.predictions.statistics import Comparison
from carray.predictions.test_access import access_text
from carray.reports.hints import predict_hint
from carray.reports.study import SHORT_HEADS
from carray.reports.table import line_width, table, wrapped

MEMBERS = ("model:<28", "state:<10", "weight:>8.3f")
RULES = ("members:>8", "temperature:>13.2f", "log-loss:>10.4f", "top-1:>9.4f")
VIEWS = (":<10", "views:>6", "log-loss:>10.4f", "top-1:>8.4f", "gain (95 % for all sets):>28.4f")


def ensemble_lines(ensemble: Ensemble) -> list[str]:
    """Return everything that a person should know before using the ensemble."""
    studies = "studies" if " + " in ensemble.study else "study"
    lines = [
        f"ensemble {ensemble.name} of {studies} {ensemble.study}, {ensemble.seconds:.1f} s",
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
    if ensemble.budget is not None:
        lines += ["", _budget_line(ensemble, ensemble.budget)]
    if ensemble.kept_single:
        lines += ["", _kept_line(ensemble)]
    elif ensemble.package is not None and (line := _worse_line(ensemble)):
        lines += ["", line]
    if ensemble.package is not None:
        lines += ["", f"model package: {ensemble.package}"]
        lines += [f"in MLflow: {ensemble.model_uri}"] if ensemble.model_uri else []
        lines += ["next:", predict_hint(ensemble.package)]
    return [part for line in lines for part in wrapped(line)]


def _budget_line(ensemble: Ensemble, budget: Budget) -> str:
    return (
        f"Within {budget}: the networks of its {len(ensemble.packaged)} take "
        f"{ensemble.milliseconds:.1f} ms for one image and {ensemble.mb:.1f} MB."
    )


def _kept_line(ensemble: Ensemble) -> str:
    """Say that one trial is the model, and why."""
    judged = ensemble.judged_on.partition(",")[0]
    return (
        f"The model is the best single trial, {ensemble.single.trial}: on {judged} "
        f"{ensemble.kept_single}. --no-keep-best packages the ensemble."
    )


def _worse_line(ensemble: Ensemble) -> str:
    """Say why an ensemble is packaged that test speaks against, and how it wouldn't be."""
    mine = next(row for row in ensemble.rules if row.chosen)
    alone = next(row for row in ensemble.rules if row.rule == ALONE)
    ahead = metrics.Objective(ensemble.metric).is_better(mine.value, alone.value)
    if ensemble.test is None or ensemble.test.verdict != "worse":
        return ""
    stood = "was ahead" if ahead else "wasn't shown to be worse"
    return (
        "It is packaged all the same: test judges, and would no longer if it chose, and on "
        f"{ensemble.judged_on.partition(',')[0]} it {stood} ({alone.value:.4f} -> "
        f"{mine.value:.4f}). --keep-best packages {ensemble.single.trial} alone unless a gain is "
        "shown there."
    )


def _member_lines(ensemble: Ensemble) -> list[str]:
    judged = ensemble.judged_on.partition(",")[0]
    trials = [one.trial for one in ensemble.members]
    are_several = " + " in ensemble.study
    names = trials if are_several else [name.rpartition("/")[2] for name in trials]
    metric = ensemble.metric if ensemble.metric != metrics.VAL_TOP1 else metrics.VAL_LOG_LOSS
    is_own = metric == ensemble.metric
    score = SHORT_HEADS.get(metric, metrics.SHORT_NAMES[metric])
    columns = (
        *(f"member:<{max(8, 1 + max(map(len, names)))}", *MEMBERS),
        *(f"val {score}:>{len(score) + 6}.4f", "val top-1:>11.4f"),
    )
    rows = (
        (
            *(name, one.model),
            one.state if one.fold is None else f"fold {one.fold}",
            one.weight or "-",
            *(one.val_value if is_own else one.val_log_loss, one.val_top1),
            one.judged_value if is_own else one.blend_log_loss,
        )
        for name, one in zip(names, ensemble.members, strict=True)
    )
    if judged == "val":  # the last column would say the same again
        return table(columns, (row[:-1] for row in rows))
    return table((*columns, f"{judged} {score}:>{len(judged) + len(score) + 3}.4f"), rows)


def _rule_lines(ensemble: Ensemble) -> list[str]:
    head = f"rule, judged on {ensemble.judged_images} images of {ensemble.judged_on}"
    rows = [
        (
            *(f"{'>' if row.chosen else ' '} {row.rule}", row.members),
            *(row.temperature if row.temperature != 1 else "-", row.log_loss, row.top1),
        )
        for row in ensemble.rules
    ]
    if ensemble.metric in (*metrics.LOG_LOSSES, metrics.VAL_TOP1):
        return table((f"{head}:<48", *RULES), rows)
    name = metrics.SHORT_NAMES[ensemble.metric]
    own = [(*row, rule.value) for row, rule in zip(rows, ensemble.rules, strict=True)]
    return table((f"{head}:<48", *RULES, f"{name}:>19.4f"), own)


def _tta_lines(ensemble: Ensemble) -> list[str]:
    """Say what each set of views was worth, and which were refused."""
    head = f"views, each calibrated, on {ensemble.judged_images} images of {ensemble.judged_on}"
    rows = []
    for row in ensemble.tta_rows:
        is_plain = row.name == "none"
        mean = "" if is_plain else (", soft" if row.space == "probability" else ", logit")
        name = f"{'>' if row.chosen else ' '} {row.name}{mean}"
        verdict, gain = (None, None) if is_plain else (row.verdict, row.gain)
        rows.append((name, verdict, row.views, row.log_loss, row.top1, gain))
    lines = table((f"{head}:<32", *VIEWS), rows, spare=("views",))
    return [*lines, _tta_verdict(ensemble)]


def _tta_verdict(ensemble: Ensemble) -> str:
    if ensemble.tta is not None:
        return f"The model looks at every image through {ensemble.tta.label}."
    worst = max(ensemble.tta_rows, key=lambda row: row.log_loss)
    sets = len(ensemble.tta_rows) - 1
    sentence = (
        f"No set of views is shown to help by more than the best of {sets} does by chance: the "
        "model looks at every image once"
    )
    if worst.verdict == HURTS:
        plain = ensemble.tta_rows[0]
        sentence += (
            f" ({worst.name} would hurt: log-loss {plain.log_loss:.4f} -> {worst.log_loss:.4f}, "
            f"top-1 {plain.top1:.4f} -> {worst.top1:.4f})"
        )
    return sentence + "."


def _test_lines(ensemble: Ensemble, test: Comparison) -> list[str]:
    single = ensemble.single
    head = f"test, {counted(test.images, 'image')} (95 % interval)"
    are_several, plain = " + " in ensemble.study, ensemble.single_untempered
    number = single.trial if are_several else single.trial.rpartition("/")[2]
    rows = [(f"best single, {number}", test.single.log_loss, test.single.top1)]
    if plain is not None and ensemble.single_temperature != 1:
        tempered = f"best single, {number}, temp. {ensemble.single_temperature:.2f}"
        rows = [
            (f"best single, {number}, as it is", plain.log_loss, plain.top1),
            (tempered, test.single.log_loss, test.single.top1),
        ]
    rows += [
        ("ensemble", test.ensemble.log_loss, test.ensemble.top1),
        ("gain", test.log_loss_gain, test.top1_gain),
    ]
    width = max(36, 1 + max(len(label) for label, *_ in rows))
    columns = (f"{head}:<{width}", "log-loss:>26.4f", "top-1:>26.4f")
    p_values = (f"p = {p:.3g}" for p in (test.log_loss_p, test.top1_p))
    lines = table(columns, [*rows, ("paired bootstrap; McNemar", *p_values)])
    only = (test.only_ensemble_right, test.only_single_right)
    lines.append(f"right where the other is wrong: ensemble {only[0]}, single trial {only[1]}")
    if ensemble.models_that_opened_test > 1:
        lines.append(
            f"{access_text(ensemble.models_that_opened_test)}: the more look, the less it says"
        )
    return lines


def _shown(column: str, value: str) -> str:
    """Return a cell as a person reads it: the end of a long path, a probability's first digits."""
    return f"{float(value):.3f}" if value and column.startswith("probability") else value[-40:]


def prediction_lines(done: PredictedFile) -> list[str]:
    """Say what was written, with its first rows and every kind of trouble."""
    lines = [f"{counted(done.images, 'image')}, {done.seconds:.1f} s: {done.out}", ""]
    read = [row for row in done.rows if not row.get("error")]
    shown = [[_shown(*cell) for cell in row.items() if cell[0] != "error"] for row in read[:SHOWN]]
    width = max((len(name) for name, *_ in shown), default=0)
    for name, *rest in shown:
        line = f"  {name:<{width}}"
        for value in filter(None, rest):
            if len(line) + len(value) > line_width() - 5:
                line += "  …"
                break
            line += f"  {value}"
        lines.append(line)
    more = len(read) - SHOWN
    lines += [f"  and {more} more"] if more > 0 else []
    for name, why in list(done.unreadable.items())[:SHOWN]:
        lines += wrapped(f"unreadable: {name} ({why})")
    more = len(done.unreadable) - SHOWN
    lines += [f"and {counted(more, 'more unreadable image')}"] if more > 0 else []
    return lines + [part for note in done.notes for part in wrapped(f"note: {note}")]
