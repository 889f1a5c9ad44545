"""What `carray export` and `carray bench` print: forms beside one another, and what to do next."""

from __future__ import annotations

from carray.errors import counted
from carray.export.bench import Bench
from carray.export.export import Export
from carray.reports.hints import shown_path
from carray.reports.table import Whole, table

COLUMNS = (
    *("form:<15", "agreement:>10.4f", "largest difference:>19.4f", "log-loss:>10.4f"),
    *("top-1:>8.4f", "ms:>8.1f", "MB:>8.1f"),
)
TIMES = (
    *("form:<12", "batch:>6", "p50 ms:>10.1f", "p95 ms:>10.1f"),
    *("images/s:>10.1f", "MB:>8.1f"),
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
    file = done.files[0].parent if done.to == "hf-space" else done.files[0]
    opset = f", opset {done.opset}" if done.opset else ""
    lines = [
        f"{done.model} on {counted(done.photographs, f'{done.split} photograph')}, one at a time, "
        "from file to probabilities:",
        *table(COLUMNS, rows),
        "",
        f"written: {shown_path(file)} ({done.forms[-1].mb:.1f} MB{opset}), {done.seconds:.0f} s",
        *(f"note: {note}" for note in done.notes),
    ]
    if file.suffix == ".onnx":
        lines += ["next: " + f"python {shown_path(done.files[1])} PHOTO.jpg"]
        lines += ["", *map(Whole, done.files[1].read_text(encoding="utf-8").splitlines())]
    if done.to == "hf-space":
        lines += [f"next: python {shown_path(file / 'app.py')}  (pip install gradio onnxruntime)"]
        lines += ["      or push the folder to a Space of your own on the Hugging Face hub"]
    return lines


def bench_lines(found: Bench) -> list[str]:
    """Return each form's times, and why others have none."""
    rows = (
        (*(each.form, each.batch, each.p50, each.p95), *(each.images_per_second, each.mb))
        for each in found.timings
    )
    threads = counted(found.threads, "thread")
    return [
        f"{found.model} on this CPU, {threads}, from decoded images of {found.width} x "
        f"{found.height} to probabilities:",
        *table(TIMES, rows),
        *(f"note: {form} isn't to be had here: {why}" for form, why in found.missing.items()),
    ]
