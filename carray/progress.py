"""Progress with a rate and an ETA: a bar on a terminal, a logged line every few seconds when piped.

Whoever raises the level of the logger `carray` above INFO sees neither; handlers get the lines.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from carray.typing import Advance

LINE_EVERY_SECONDS = 5.0
LATE_SECONDS = 2.0  # what takes less needs no bar that comes and goes
ON_BOARD = "on_board"  # marks log records that a study's board shows by itself

_logger = logging.getLogger(__name__)


def seconds_text(seconds: float) -> str:
    """Say seconds as a person reads them: 8.2 s, 3:05, 2:10:00."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def progress(what: str, total: int, unit: str = "images") -> Iterator[Advance]:
    """Show on stderr how far `what` is; yield the function that advances it."""
    if sys.stderr.isatty():
        with _bar(what, total, unit) if is_info_wanted() else silent(what, total, unit) as advance:
            yield advance
    else:
        lines = _Lines(what, total, unit)
        yield lines.advance
        lines.close()


@contextmanager
def silent(what: str, total: int, unit: str = "images") -> Iterator[Advance]:
    """Show nothing: the null object of `progress`."""
    yield lambda count: None


class LateBar:
    """A bar that appears on a terminal once something takes long, and goes with it.

    Elsewhere nothing is shown: it is for parts of what has lines of its own.
    """

    def __init__(self, what: str, total: int, unit: str = "images") -> None:
        self._shown = (what, total, unit)
        self._start, self._done = math.inf, 0
        self._held = ExitStack()
        self._advance: Advance | None = None
        self._is_wanted = sys.stderr.isatty() and is_info_wanted()

    def advance(self, count: int) -> None:
        """Take in how much more is done; the clock starts with the first."""
        self._start = min(self._start, time.monotonic())
        self._done += count
        if self._advance:
            self._advance(count)
        elif self._is_wanted and time.monotonic() - self._start >= LATE_SECONDS:
            bar = _bar(*self._shown, since=self._start, stays=False)
            self._advance = self._held.enter_context(bar)
            self._advance(self._done)

    def close(self) -> None:
        """Take the bar away."""
        self._is_wanted, self._advance = False, None
        self._held.close()


@contextmanager
def _bar(
    what: str, total: int, unit: str, *, since: float | None = None, stays: bool = True
) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Eta

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}  {task.fields[rate]}/s  ETA", markup=False),
        Eta(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=not stays) as bar:
        task = bar.add_task(what, total=total, unit=unit, rate="0")
        start, done = time.monotonic() if since is None else since, 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            rate = done / max(time.monotonic() - start, 1e-6)
            bar.update(task, advance=count, rate=_rate_text(rate))

        yield advance


def _rate_text(rate: float) -> str:
    return f"{rate:,.{0 if rate >= 10 else 1}f}"


class _Lines:
    """One line every `LINE_EVERY_SECONDS`, and one at the end if any was written."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._start = self._last = time.monotonic()
        self._done = self._told = 0
        self._printed = False

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._last >= LINE_EVERY_SECONDS:
            self._print()

    def close(self) -> None:
        if self._printed and self._done and self._done != self._told:
            self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        self._printed = True
        self._told = self._done
        spent = self._last - self._start
        rate = self._done / spent
        left = (self._total - self._done) / rate if rate else 0.0
        line = (
            f"{self._what}: {self._done:,} of {self._total:,} {self._unit}, "
            f"{_rate_text(rate)}/s, {seconds_text(left)} left"
        )
        if _logger.hasHandlers():
            _logger.info(line)
        elif is_info_wanted():  # nobody has set logging up, which itself shows warnings alone
            print(line, file=sys.stderr, flush=True)  # noqa: T201


def is_info_wanted(logger: logging.Logger | None = _logger) -> bool:
    """Say whether nobody has raised the level of `logger`, or of one above it up to `carray`."""
    while logger is not None and logger is not logging.root:
        if logger.level:
            return logger.level <= logging.INFO
        logger = logger.parent
    return True
