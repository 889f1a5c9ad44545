"""What there is under a runs folder: studies, trials and models, in lines for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, TypeAlias

from carray import metrics
from carray.analysis.leaders import leaders_of
from carray.config import TrialConfig, flatten
from carray.errors import RecordError, as_yaml, counted, did_you_mean
from carray.inference.card import Card
from carray.inference.package import is_measured, packages
from carray.inference.versions import find_version, split_version, version_note
from carray.models.names import HUB, OLD_HUB, may_be_backbone
from carray.predictions.network_costs import NetworkCosts
from carray.progress import seconds_text
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.reports.hints import predict_hint, runs_option
from carray.reports.leaders import behind_text, leaders_lines
from carray.reports.readable import ReadableStudy, Unreadable, note_lines
from carray.reports.study import (
    SHORT_HEADS,
    headline,
    state_now,
    study_json,
    study_lines,
    study_now,
    study_table,
    trained_now,
)
from carray.reports.table import line_width, table, value_text, wrapped
from carray.runs_folder import RunsFolder
from carray.tracking.tracker import drawn_params

if TYPE_CHECKING:
    import pandas as pd

    from carray.models.summary import ModelSummary

Shown: TypeAlias = "TrialRecord | StudyFolder | Path | ModelSummary"
"""What a name may be of; a path is that of a model's package."""

WIDTH = 80  # where there is room for it
STUDIES = ("study:<24", "state:<12", "trials:>7", "best:>9.4f", "metric:>20", "time:>8")
MODELS = ("model:<30", "study:<31", "members:>8", "test top-1:>11.4f")
NOTHING = "nothing under {}: `carray demo` makes a first study, `carray tune DIR` one of your own"


def list_lines(runs: RunsFolder) -> list[str]:
    """Return every study, the newest first, then every model, and what can't be read."""
    found = list_all(runs)
    studies, models = found["studies"], found["models"]
    if not any(found.values()):
        return [NOTHING.format(runs.path)]
    lines = table(STUDIES, map(_study_cells, studies), spare=("time",)) if studies else []
    if models:
        rows = ([model[name] for name in ("name", "study", "members", "top1")] for model in models)
        lines += ["", *table(MODELS, rows)]
    lines += note_lines(found["unreadable"])
    return [*lines, "", "next:", f"  carray show NAME{runs_option(runs.path)}"]


def _study_cells(study: Mapping[str, Any]) -> list[object]:
    seconds = study["seconds"]
    took = None if seconds is None else seconds_text(seconds)
    metric = metrics.SHORT_NAMES[study["metric"]]
    return [*(study[name] for name in ("name", "standing", "trials", "best")), metric, took]


def list_all(runs: RunsFolder) -> dict[str, list[Any]]:
    """Return the studies and the models, the newest first, and what can't be read.

    Of a study its name, state, how it stands in words, number of trials, best value and seconds;
    of a model its name, study, number of members, and top-1 on test.
    """
    unreadable: list[Unreadable] = []
    studies: list[tuple[float, dict[str, Any]]] = []
    for folder in map(ReadableStudy.of, runs.study_folders()):
        try:
            studies.append((folder.record().started_at, _study_row(folder)))
            unreadable += folder.unreadable
        except RecordError as error:
            unreadable.append(Unreadable(folder.path.name, str(error)))
    models = []
    for package in reversed(packages(runs)):
        try:
            models.append(_model_row(package))
        except RecordError as error:
            unreadable.append(Unreadable(package.name, f"{error}; move its folder away"))
    newest_first = [row for _, row in sorted(studies, key=lambda each: each[0])][::-1]
    return {"studies": newest_first, "models": models, "unreadable": unreadable}


def _study_row(folder: StudyFolder) -> dict[str, Any]:
    study, records = study_now(folder), folder.records()
    best = study.objective.best(record for record in records if record.config.fold is None)
    return {
        "name": folder.path.name,
        "kind": study.kind,
        "state": study.state,
        "standing": study.standing,
        "trials": len(records),
        "best": math.nan if best is None else best.best(study.metric),
        "metric": study.metric,
        "seconds": study.worked_seconds,
    }


def _model_row(folder: Path) -> dict[str, Any]:
    card = Card.read(folder / "card.json")
    test = card.results.get("test") or {}
    side = "single" if card.results.get("kept_single") else "ensemble"
    top1 = test[side]["top1"]["value"] if test else math.nan
    row = {"name": folder.name, "study": card.study, "members": len(card.members)}
    return {**row, "top1": top1, "folder": folder}


def find_shown(runs: RunsFolder, name: str, image_size: int | None = None) -> Shown:
    """Return what `name` is: a trial (`STUDY/NUMBER`), a model package, a study, or a backbone.

    `image_size` is a backbone's alone.

    Raises:
        RecordError: it is none of these; the nearest name is told.
    """
    name = name.rstrip("/")  # as shells complete a folder's
    is_hub = name.startswith((HUB, OLD_HUB))
    if not is_hub and ("/" in name or (Path(name) / "record.json").exists()):
        return runs.find_trial(name).record()
    if (package := find_version(runs.models, name)) is not None:
        return package
    if (study := runs.study(name)).record_file.exists():
        return study
    if (backbone := _find_backbone(name, image_size)) is not None:
        return backbone
    known = [*runs.study_names(), *(folder.name for folder in packages(runs))]
    raise RecordError(
        f"there is no study and no model {name!r} under {runs.path}{did_you_mean(name, known)}; "
        "`carray list` names them, a trial is STUDY/NUMBER"
    )


def _find_backbone(name: str, image_size: int | None) -> ModelSummary | None:
    """Return what a backbone is made of; None for a name that is none."""
    if not may_be_backbone(name):
        return None
    from carray.models.registry import known_backbones, present_name  # imports torch

    if present_name(name).partition(".")[0] not in known_backbones():
        return None
    from carray.models.summary import summarise_model

    return summarise_model(name, image_size)


def shown_lines(runs: RunsFolder, found: Shown) -> list[str]:
    """Return what was found, in lines."""
    if isinstance(found, TrialRecord):
        return trial_lines(found, _state_of(runs, found))
    if isinstance(found, StudyFolder):
        return study_lines(found, wide=False)
    if isinstance(found, Path):
        name, _ = split_version(found.name)
        has_study = runs.study(name).record_file.exists()
        other = f"there is a study of this name too: carray status --study {name}"
        return [*model_lines(found), *([other] if has_study else [])]
    from carray.reports.model_summary import summary_lines

    return summary_lines(found)


def shown_json(found: Shown) -> object:
    """Return what was found as its file has it: a record, a model's card; a study with trials."""
    if isinstance(found, StudyFolder):
        return study_json(found)
    return Card.read(found / "card.json") if isinstance(found, Path) else found


def _state_of(runs: RunsFolder, record: TrialRecord) -> str:
    """Return how a trial stands now; of another runs folder's what its record says."""
    if record.state.is_finished() or not (study := runs.study(record.study)).record_file.exists():
        return record.state
    return state_now(record.number, record.state, trained_now(ReadableStudy.of(study)))


def trial_lines(record: TrialRecord, state: str) -> list[str]:
    """Return how a trial stands, what it was asked to do, and its epochs."""
    lines = [f"trial {record.name} is {state}" + (f": {record.reason}" if record.reason else "")]
    if record.refit_of is not None:
        lines.append(record.refit_text)
    lines += ["", "configuration, where it isn't the default:"]
    usual = flatten(TrialConfig())
    for key, value in flatten(record.config).items():
        if value != usual.get(key):
            drawn = "  (drawn)" if any(key in name for name in record.params) else ""
            text = value_text(value) if isinstance(value, str) else as_yaml(value)
            lines.append(f"  {key:<28} {text}{drawn}")
    computed = [str(each) for each in (record.compute, record.hardware) if each is not None]
    lines += [f"computed in {', '.join(computed)}"] if computed else []
    if record.epochs:
        lines += ["", *_epoch_lines(record)]
    return lines


def _epoch_lines(record: TrialRecord) -> list[str]:
    names = (metrics.TRAIN_LOSS, *metrics.OBJECTIVES, metrics.LR)
    columns = (
        *("epoch:<8", "train loss:>10.4f", "log-loss:>9.4f", "cal. loss:>10.4f", "top-1:>7.4f"),
        *("top-5:>7.4f", "macro F1:>9.4f", "balanced:>9.4f", "lr:>9.2g"),
    )
    rows = []
    for number, row in enumerate(record.epochs, start=1):
        mark = f"{number}{' *' if number == record.best_epoch else ''}"
        rows.append((mark, *(row.get(name, math.nan) for name in names)))
    return [*table(columns, rows), f"*: the best in {record.config.best_metric}, which is kept"]


def model_lines(folder: Path) -> list[str]:
    """Return what a model package holds, and what it was worth."""
    card = Card.read(folder / "card.json")
    made = datetime.fromtimestamp(card.made_at) if card.made_at else None
    date = f"{made:%Y-%m-%d %H:%M}" if made else "of unknown date"
    lines = [f"model {folder.name}: {card.what}", f"of study {card.study}, {date}"]
    lines += [note] if (note := version_note(folder)) else []
    trials = [each.trial.removeprefix(f"{card.study}/") for each in card.members]
    rows = ((name, of.backbone, of.weight) for name, of in zip(trials, card.members, strict=True))
    lines += ["", *table(("member:<26", "backbone:<40", "weight:>8.3f"), rows), ""]
    if card.temperature != 1:
        lines.append(f"temperature {card.temperature:g}")
    lines += _distilled_lines(card.results.get("distilled"))
    if is_measured(card.results):
        lines += wrapped(str(card.results.get("verdict", "")))
    else:
        lines.append("it was not measured on test")
    return [*lines, "", "next:", predict_hint(folder)]


def _distilled_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Return what a student is worth beside its teacher, as it was packaged."""
    if found is None:
        return []
    rows = (
        (
            row["what"],
            row["log_loss"]["value"],
            row["top1"]["value"],
            row["milliseconds"],
            row["mb"],
        )
        for row in found["rows"]
    )
    head = f"{counted(found['images'], 'image')} of {found['split']}:<28"
    columns = (head, "log-loss:>10.4f", "top-1:>10.4f", "ms:>8.1f", "MB:>8.1f")
    return [f"a student of {found['teacher']}", *table(columns, rows), ""]


def status_lines(folder: StudyFolder) -> list[str]:
    """Return how a study stands now: counts, what runs, the best so far."""
    folder = ReadableStudy.of(folder)
    study, rows = study_now(folder), study_table(folder)
    lines = [headline(study, rows)]
    running = [record for record in folder.records() if record.state is TrialState.RUNNING]
    for record in running if study.state == "running" else ():
        done = f"{len(record.epochs)} of {counted(record.config.epochs, 'epoch')}"
        lines.append(f"  trial {record.number:04d} runs: {record.config.backbone}, {done}")
    best = next((row for row in rows if row.fold is None and row.best_epoch), None)
    if best is not None:
        name, value = metrics.SHORT_NAMES[study.metric], best.value_in(study.metric)
        lines.append(f"best {name} {value:.4f}: trial {best.number:04d}, {best.backbone}")
    if study.state == "interrupted":
        begun_by = "train" if study.kind == "single" else "tune"
        lines.append(f"the `carray {begun_by}` that began it goes on where it stopped")
    return lines + note_lines(folder.unreadable)


def leaderboard(folder: StudyFolder) -> pd.DataFrame:
    """Return a study's trials, best first: a row each, with what was drawn as columns.

    Folds are left out, since they are judged on other images.
    """
    import pandas as pd

    folder = ReadableStudy.of(folder)
    records = {record.number: record for record in folder.records()}
    costs = NetworkCosts.of(folder)
    rows = [row for row in study_table(folder) if row.fold is None]
    cells = [
        {
            **_scores(row),
            **costs.figures(records[row.number].config),
            **drawn_params(records[row.number]),
        }
        for row in rows
    ]
    return pd.DataFrame(cells, columns=list(dict.fromkeys(name for row in cells for name in row)))


def _scores(row: Any) -> dict[str, Any]:
    scores = {name: row.value_in(name) for name in metrics.OBJECTIVES}
    shown = ("trial", "kind", "state", "backbone")
    epochs = {"epochs": row.epochs, "best_epoch": row.best_epoch, "seconds": row.seconds}
    return {**{name: getattr(row, name) for name in shown}, **scores, **epochs}


def leaderboard_lines(folder: StudyFolder, top: int) -> list[str]:
    """Return the best `top` trials, each with its score and what was drawn for it."""
    folder = ReadableStudy.of(folder)
    metric = folder.record().metric
    rows = [row for row in study_table(folder) if row.fold is None][:top]
    notes = note_lines(folder.unreadable)
    if not rows:
        return ["no trial has been recorded yet", *notes]
    records = {record.number: record for record in folder.records()}
    name = SHORT_HEADS.get(metric, metrics.SHORT_NAMES[metric])
    leaders = leaders_of(folder)
    head = f"{name}:>{max(10, len(name) + 1)}.4f"
    columns = ("trial:<6", "state:<11", head, "  backbone:<24", "behind the best:>25")
    scored = table(
        columns,
        (
            (
                *(f"{row.number:04d}", row.state, row.value_in(metric), f"  {row.backbone}"),
                behind_text(leaders, row.trial),
            )
            for row in rows
        ),
    )
    costs = NetworkCosts.of(folder)
    lines = scored[: -len(rows)]
    for line, row in zip(scored[-len(rows) :], rows, strict=True):
        record = records[row.number]
        lines += [line, *_drawn_lines(drawn_params(record))]
        lines += [f"      {text}" for text in costs.texts(record.config)]
    for text in leaders_lines(leaders) if leaders else ():
        lines += ["", *wrap(text, line_width(WIDTH))]
    return lines + notes


def _drawn_lines(values: Mapping[str, Any]) -> Iterator[str]:
    words = [f"{name}={value_text(value)}" for name, value in values.items()]
    yield from wrap(
        "  ".join(words), line_width(WIDTH), initial_indent="      ", subsequent_indent="      "
    )


def html(frame: pd.DataFrame, head: Sequence[str]) -> str:
    """Return a study as a notebook shows it."""
    from html import escape

    text = "".join(f"<p>{escape(line)}</p>" for line in head)
    return text + str(frame.head(20).to_html(index=False, float_format="{:.4g}".format, border=0))
