"""What `carray distill` prints: the student beside its teacher, and beside labels alone."""

from __future__ import annotations

from carray.analysis.distillation import ALONE, Distillation, SeedGain
from carray.ensemble.result import FIGURE_VERDICTS
from carray.errors import counted
from carray.reports.hints import predict_hint, shown_path
from carray.reports.table import interval_text, table, wrapped

SCORES = ("log-loss:>26.4f", "top-1:>26.4f", "ms:>8.1f", "MB:>7.1f")


def distillation_lines(found: Distillation) -> list[str]:
    """Return the table, the paired tests, what was written and the next command."""
    config, distill = found.config, found.config.distill
    rows = [(row.what, row.log_loss, row.top1, row.milliseconds, row.mb) for row in found.rows]
    seeds = "; ".join(
        f"{row.what} " + ", ".join(f"{loss:.4f}" for loss in row.seed_log_losses)
        for row in found.rows[1:]
    )
    lines = [
        "",
        f"{config.backbone}, {config.image_size} px, {counted(config.epochs, 'epoch')}, taught by "
        f"{found.teacher} (weight {distill.weight:g}, temperature {distill.temperature:g}):",
        "",
        *table(
            (f"{counted(found.images, 'image')} of {found.split}:<28", *SCORES), rows, spare=("MB",)
        ),
        "",
        *([f"log-loss of each seed: {seeds}"] if len(found.rows[1].trials) > 1 else []),
        f"The student against {ALONE}: {_text(found.against_alone)}.",
        f"Against its teacher: {_text(found.against_teacher)}.",
        *(f"note: {note}" for note in found.notes),
        "ms: one image through the networks alone, on this machine's CPU",
        "",
        f"trial: {found.trial}",
    ]
    if found.package is not None:
        lines += [f"model package: {shown_path(found.package)}", "next:"]
        lines += [predict_hint(found.package)]
    return [part for line in lines for part in wrapped(line)]


def _text(gain: SeedGain) -> str:
    figures = (("log-loss", gain.log_loss, gain.log_loss_p), ("top-1", gain.top1, gain.top1_p))
    return "; ".join(
        f"{name} gain {interval_text(value, '+.4f')}, p = {p:.2g}: {FIGURE_VERDICTS[verdict]}"
        for (name, value, p), verdict in zip(figures, gain.verdicts, strict=True)
    )
