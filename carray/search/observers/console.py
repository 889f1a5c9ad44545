"""Shows a study's progress on the console: a table on a terminal, a line an event when piped.

It listens like a tracker does. At most 100 columns; `JsonBoard` writes one JSON object a line.
"""

from __future__ import annotations

import heapq
import io
import json
import logging
import math
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from carray import metrics
from carray.costs import BUDGET_SPENT
from carray.files import hush
from carray.masking import masked
from carray.progress import ON_BOARD, is_info_wanted, seconds_text
from carray.records import StudyRecord, TrialFolder, TrialRecord
from carray.search.observers.start_line import drawn_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

WIDTH = 100
ROWS = 10  # trials that a terminal's board shows
BACKBONE_WIDTH = 34  # at most; a narrow terminal cuts its name, not the columns after it
OTHERS_WIDTH = 65  # what those take, with the gaps
STYLES = {
    "complete": "green",
    "pruned": "yellow",
    "failed": "red",
    "infeasible": "red",
    "collapsed": "red",
}

_logger = logging.getLogger(__name__)


class Board:
    """Lines, one an event: the board of a pipe, a log file, a job."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._records: dict[int, TrialRecord] = {}
        self._worth: dict[str, dict[int, float]] = defaultdict(dict)  # by kind; lower is better
        self._ended: set[int] = set()  # trials of the search
        self._study: StudyRecord | None = None
        self._start = time.monotonic()
        self._first_trial: float | None = None  # when this call's first trial began
        self.deadline: float | None = None  # when the budget is spent, on the monotonic clock
        self._before = 0  # trials that had ended before this call
        self._voice = threading.RLock()
        self._is_over = False

    def plan(self, lines: Sequence[str], lanes: int) -> None:
        """Show the plan, before anything starts."""
        for line in lines:
            self.note(line)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to the progress of something else."""
        yield

    def note(self, text: str) -> None:
        """Log something that is no event of a trial, and show it; a raised level silences it."""
        text = masked(text)
        _logger.info(text, extra={ON_BOARD: True})
        if is_info_wanted(_logger):
            self._show(text)

    def last_note(self, text: str) -> None:
        """Note what is the last: what other threads have to show comes before it, or not at all."""
        self.close()
        with self._voice:
            self.note(text)
            self._is_over = True

    def _show(self, text: str) -> None:
        """Show it whole: what is wrong and its cure come last."""
        self._print(text)

    def lanes(self, up: int, wanted: int, lost: int) -> None:
        """Show how many lanes are up, of those wanted, and how many have lost their node."""
        self._show(lanes_text(up, wanted, lost))

    def study_started(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Take the study; the clock goes on from the call's start: one for all lines."""
        self._study = study

    def known(self, records: Sequence[TrialRecord]) -> None:
        """Learn of trials of earlier calls."""
        for record in records:
            self._take(record)
        self._before = len(self._ended)

    def trial_started(self, record: TrialRecord) -> None:
        """Show a trial's start."""
        self._add(record)
        drawn = drawn_text(record, list(self._records.values()))
        starts = f"goes on after epoch {len(record.epochs)}" if record.epochs else "starts"
        said = f"{_label(record)} {starts}: {record.config.backbone}, {drawn}"
        self._show(said.removesuffix(", "))

    def epoch_ended(self, record: TrialRecord) -> None:
        """Show an epoch's end."""
        self._take(record)
        row = record.epochs[-1]
        self._say(
            f"{_label(record)} epoch {len(record.epochs)}/{record.config.epochs}: "
            f"log-loss {row[metrics.VAL_LOG_LOSS]:.4f} "
            f"(calibrated {row[metrics.VAL_CALIBRATED_LOG_LOSS]:.4f}), "
            f"top-1 {row[metrics.VAL_TOP1]:.3f}, {row[metrics.IMAGES_PER_SECOND]:.0f} images/s"
        )

    def trial_ended(self, record: TrialRecord, folder: TrialFolder) -> None:
        """Show a trial's end, and how the study stands."""
        self._take(record)
        why = f" ({record.reason})" if record.reason else ""
        self._show(f"{_label(record)} is {record.state}{why}. {self._standing()}")

    def study_ended(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Show the study's end."""
        self._study = study
        stands = "has its budget spent" if study.standing == BUDGET_SPENT else f"is {study.state}"
        self._show(f"study {study.name} {stands}. {self._standing()}")

    def close(self) -> None:
        """Nothing is waiting."""

    def _say(self, text: str) -> None:
        """Show an event in a line that fits."""
        self._print(text, WIDTH)

    def _print(self, text: str, width: int | None = None) -> None:
        clock = seconds_text(time.monotonic() - self._start)
        self._write_line(f"[{clock:>6}] {text}"[:width])

    def _write_line(self, line: str) -> None:
        with self._voice:
            if self._is_over:
                return
            try:
                print(line, file=self._stream, flush=True)
            except BrokenPipeError:
                self._is_over = True
                hush(self._stream)
                sys.stderr.write("carray: nobody reads its events any more; it goes on\n")

    def _add(self, record: TrialRecord) -> None:
        self._first_trial = self._first_trial or time.monotonic()
        self._take(record)

    def _take(self, record: TrialRecord) -> None:
        """Keep how a trial stands, and what it is worth: no event looks at all trials' epochs."""
        self._records[record.number] = record
        if record.kind == "search":
            note = self._ended.add if record.state.is_finished() else self._ended.discard
            note(record.number)  # one that a budget stopped may go on
        if self._study is not None:
            worth = self._study.objective.key_of(record)
            self._worth[record.kind][record.number] = worth

    def _worth_of(self, record: TrialRecord) -> float:
        return self._worth[record.kind].get(record.number, math.inf)

    def _standing(self) -> str:
        """Say how many ended, the best so far, and after three the ETA of a study that runs."""
        if self._study is None:
            return ""
        parts = [f"{len(self._ended)} of {self._study.trials} ended"]
        worth = {**self._worth["search"], **self._worth["refit"]}
        best = min(worth, key=worth.__getitem__, default=-1)
        if worth.get(best, math.inf) < math.inf:
            name = metrics.SHORT_NAMES.get(self._study.metric, self._study.metric)
            value = self._records[best].best(self._study.metric)
            parts.append(f"best {name} {value:.4f} (trial {best:04d})")
        eta = self._eta_seconds()
        if eta is not None and eta > 0:
            parts.append(f"ETA {seconds_text(eta)}")
        return ", ".join(parts)

    def _eta_seconds(self) -> float | None:
        """Extrapolate from this call's ended trials; None before three, and after the study."""
        if self._study is None or self._study.state != "running":
            return None
        here = len(self._ended) - self._before
        if self._first_trial is None or here < 3:
            return None
        now = time.monotonic()
        rest = (now - self._first_trial) / here * max(0, self._study.trials - len(self._ended))
        return rest if self.deadline is None else min(rest, max(0.0, self.deadline - now))


class JsonBoard(Board):
    """One JSON object a line, for machines."""

    def plan(self, lines: Sequence[str], lanes: int) -> None:
        """Write the plan."""
        self._write(event="plan", lanes=lanes, text=list(lines))

    def _show(self, text: str) -> None:
        self._write(event="note", text=text)

    def lanes(self, up: int, wanted: int, lost: int) -> None:
        """Write how many lanes are up, wanted and lost."""
        self._write(event="lanes", up=up, wanted=wanted, lost=lost)

    def trial_started(self, record: TrialRecord) -> None:
        """Write a trial's start."""
        self._add(record)
        self._write(event="trial_started", trial=record.name, params=record.params)

    def epoch_ended(self, record: TrialRecord) -> None:
        """Write an epoch's metrics."""
        self._take(record)
        self._write(
            event="epoch_ended",
            trial=record.name,
            epoch=len(record.epochs),
            metrics=record.epochs[-1],
        )

    def trial_ended(self, record: TrialRecord, folder: TrialFolder) -> None:
        """Write how a trial ended."""
        self._take(record)
        self._write(
            event="trial_ended",
            trial=record.name,
            state=record.state.value,
            reason=record.reason,
            eta_seconds=self._eta_seconds(),
        )

    def study_ended(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Write how the study ended."""
        standing = study.standing
        self._write(event="study_ended", study=study.name, state=study.state, standing=standing)

    def _write(self, **event: Any) -> None:
        self._write_line(json.dumps(event, ensure_ascii=False))


class LiveBoard(Board):
    """A table redrawn in place: running trials, then the best that have ended."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        from rich.console import Console

        self._console = Console(file=stream, width=min(WIDTH, Console().width))
        self._live = self._table()
        self._lanes_text = ""

    def lanes(self, up: int, wanted: int, lost: int) -> None:
        """Show it in the head of the table from now on."""
        self._lanes_text = f"  {lanes_text(up, wanted, lost)}"

    def render(self) -> str:
        """Return the table as it would be drawn now, without colours; "" before the study."""
        from rich.console import Console

        drawn = io.StringIO()
        Console(file=drawn, width=self._console.width).print(self._draw())
        return drawn.getvalue().rstrip("\n")

    def study_started(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Begin to draw."""
        super().study_started(study, files)
        self._live.start()

    def _show(self, text: str) -> None:
        """Print above the table."""
        with self._voice:
            if not self._is_over:
                self._console.print(text, markup=False, highlight=False)

    def study_ended(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Draw for the last time."""
        self._study = study
        self.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the table away meanwhile: two that redraw one terminal write over each other."""
        is_drawn = self._live.is_started
        self._live.transient = True
        self._live.stop()
        self._live = self._table()  # the old one would wipe as many lines as it last drew
        try:
            yield
        finally:
            if is_drawn:
                self._live.start()

    def close(self) -> None:
        """Leave the last table standing."""
        if self._live.is_started:
            self._live.stop()

    def _table(self) -> Live:
        from rich.live import Live

        return Live(console=self._console, get_renderable=self._draw, refresh_per_second=2)

    def _say(self, text: str) -> None:
        """Events are in the table."""

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        if self._study is None:
            return Text("")
        clock = seconds_text(time.monotonic() - self._start)
        standing = f"{self._standing()}{self._lanes_text}"
        head = Text(f"study {self._study.name}  {clock}  {standing}", style="bold")
        if self._study.state == "complete":
            return head  # whoever ran it shows its trials
        table = Table(box=None, pad_edge=False, header_style="dim")
        widest = max(len("backbone"), min(BACKBONE_WIDTH, self._console.width - OTHERS_WIDTH))
        for name in ("trial", "state", "backbone", "epoch", "log-loss", "top-1", "images/s", "lr"):
            justify = "left" if name in ("trial", "state", "backbone") else "right"
            table.add_column(name, justify=justify, no_wrap=True, max_width=widest)  # type: ignore[arg-type]
        for record in self._shown():
            state = str(record.state)
            table.add_row(*_cells(record), style=STYLES.get(state, ""))
        return Group(head, table)

    def _shown(self) -> list[TrialRecord]:
        records = list(self._records.values())
        running = [record for record in records if not record.state.is_finished()]
        ended = [r for r in records if r.state.is_finished() and self._worth_of(r) < math.inf]
        return (running + heapq.nsmallest(ROWS, ended, key=self._worth_of))[:ROWS]


def open_board(as_json: bool = False) -> Board:
    """Return the board that fits where the output goes."""
    if as_json:
        return JsonBoard()
    return LiveBoard() if sys.stdout.isatty() else Board()


def _label(record: TrialRecord) -> str:
    kind = record.kind if record.kind in ("refit", "fold") else "trial"
    return f"{kind} {record.number:04d}"


def lanes_text(up: int, wanted: int, lost: int) -> str:
    """Say how many lanes are up, of those wanted, and how many have lost their node."""
    return f"lanes: {up} of {wanted} up" + f", {lost} lost" * bool(lost)


def _cells(record: TrialRecord) -> list[str]:
    best: Callable[[str], float] = record.best
    speed = (
        record.epochs[-1].get(metrics.IMAGES_PER_SECOND, math.nan) if record.epochs else math.nan
    )

    def shown(value: float, pattern: str) -> str:
        return format(value, pattern) if math.isfinite(value) else ""

    return [
        f"{record.number:04d}{'r' if record.kind == 'refit' else ''}",
        str(record.state),
        record.config.backbone,
        f"{len(record.epochs)}/{record.config.epochs}",
        shown(best(metrics.VAL_LOG_LOSS), ".4f"),
        shown(best(metrics.VAL_TOP1), ".3f"),
        shown(speed, ".0f"),
        f"{record.config.optimizer.lr:.1e}",
    ]
