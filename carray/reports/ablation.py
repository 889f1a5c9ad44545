"""Text report of an ablation: a line for each step of the recipe."""

from __future__ import annotations

from carray.analysis.ablation import Ablation
from carray.analysis.ablation_step import AblationStep
from carray.errors import counted
from carray.reports.table import USUAL, interval_text, line_width, shortened, table, table_row

COLUMNS = ("  step:<28", "log-loss:>23.3f", "top-1:>7.3f", "gain (95 %):>22", "noise:>7.3f", ":<0")
NARROW = ("  step:<24", "log-loss:>21.3f", "gain (95 %):>22", ":<0")


def ablation_lines(found: Ablation) -> list[str]:
    """Return the table as lines of at most 100 columns."""
    seeds = ", ".join(f"{loss:.4f}" for loss in found.seed_log_losses)
    on_blend = found.steps[-1].split == "blend"
    images = counted(found.steps[0].images, "image")
    return [
        f"ladder {found.study}: the anchor's {found.seeds} seeds have log-loss {seeds}",
        "",
        *head_lines(),
        *map(step_line, found.steps),
        "",
        f"gain: what stood minus the step, on {images} of val; > stays",
        f"noise: what another seed may bring, from {found.seeds} seeds of the anchor (t, 95 %)",
        *(["views and folds are judged on blend, against what stands"] if on_blend else []),
    ]


def head_lines() -> list[str]:
    """Return the head, and a line below it."""
    return table(COLUMNS if line_width() == USUAL else NARROW, (), rule=True)


def step_line(step: AblationStep) -> str:
    """Return one step's line."""
    is_narrow = line_width() < USUAL
    name = f"{'>' if step.stays else ' '} {shortened([step.name], 21 if is_narrow else 25)[0]}"
    gain = interval_text(step.gain, "+.3f", "+.2f") if step.gain else ""
    noise = step.noise or None  # views and folds are of the same seed
    if is_narrow:  # steps come one by one: what doesn't fit goes, whatever they hold
        return table_row(NARROW, (name, step.log_loss, gain, f" {step.verdict}"))
    cells = (name, step.log_loss, step.top1.value, gain, noise, f" {step.verdict}")
    return table_row(COLUMNS, cells)
