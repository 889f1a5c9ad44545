"""A ladder as lines of at most 100 columns."""

from __future__ import annotations

from carray.analysis.ablation import Ablation
from carray.analysis.ablation_step import AblationStep

HEAD = (f"{'  step':<28}{'log-loss':>23}{'top-1':>7}{'gain (95 %)':>22}{'noise':>7}").rstrip()


def ablation_lines(found: Ablation) -> list[str]:
    """Return the table as lines of at most 100 columns."""
    seeds = ", ".join(f"{loss:.4f}" for loss in found.seed_log_losses)
    on_blend = found.steps[-1].split == "blend"
    return [
        f"ladder {found.study}: the anchor's {found.seeds} seeds have log-loss {seeds}",
        "",
        HEAD,
        "-" * len(HEAD),
        *map(step_line, found.steps),
        "",
        f"gain: what stood minus the step, on {found.steps[0].images} images of val; > stays",
        f"noise: what another seed may bring, from {found.seeds} seeds of the anchor (t, 95 %)",
        *(["views and folds are judged on blend, against what stands"] if on_blend else []),
    ]


def step_line(step: AblationStep) -> str:
    """Say one step in one line."""
    loss = f"{step.log_loss.value:.3f} [{step.log_loss.low:.3f}, {step.log_loss.high:.3f}]"
    gain = ""
    if step.gain:
        gain = f"{step.gain.value:+.3f} [{step.gain.low:+.2f}, {step.gain.high:+.2f}]"
    noise = f"{step.noise:.3f}" if step.noise else ""  # views and folds are of the same seed
    mark = ">" if step.stays else " "
    return (
        f"{mark} {step.name[:25]:<26}{loss:>23}{step.top1.value:>7.3f}{gain:>22}"
        f"{noise:>7} {step.verdict}"
    ).rstrip()
