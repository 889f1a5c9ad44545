"""What `carray export` prints: each form beside the original, and how to run the file."""

from __future__ import annotations

from carray.export.export import Export
from carray.reports.hints import shown_path
from carray.reports.table import table

COLUMNS = (
    *("form:<15", "agreement:>10.4f", "largest difference:>19.4f", "log-loss:>10.4f"),
    *("top-1:>8.4f", "ms:>8.1f", "MB:>8.1f"),
)


def export_lines(done: Export) -> list[str]:
    """Return the comparison, what was written, and the next command."""
    rows = (
        (
            *(form.form, form.agreement, form.largest, form.log_loss),
            *(form.top1, form.milliseconds, form.mb),
        )
        for form in done.forms
    )
    file = done.files[0]
    opset = f", opset {done.opset}" if done.opset else ""
    lines = [
        f"{done.model} on {done.photographs} {done.split} photographs, one at a time, from file to "
        "probabilities:",
        *table(COLUMNS, rows),
        "",
        f"written: {shown_path(file)} ({done.forms[-1].mb:.1f} MB{opset}), {done.seconds:.0f} s",
        *(f"note: {note}" for note in done.notes),
    ]
    if file.suffix == ".onnx":
        lines += ["next: " + f"python {shown_path(done.files[1])} PHOTO.jpg"]
        lines += ["", *done.files[1].read_text(encoding="utf-8").splitlines()]
    return lines
