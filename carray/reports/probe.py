"""The ranking of backbones by a linear probe, as text."""

from __future__ import annotations

import shlex
from itertools import chain
from textwrap import wrap

from carray.analysis.probe import Foretold, Probe
from carray.errors import counted
from carray.progress import seconds_text
from carray.reports.table import line_width, table

COLUMNS = ("backbone:<40", "params:>9", "val log-loss:>25.3f", "top-1:>23.3f", "time:>8")


def probe_lines(found: Probe) -> list[str]:
    """Return the table, what the ranking is worth, and what to type next."""
    rows = (
        (
            *(each.backbone, f"{each.parameters / 1e6:.2f} M"),
            *(each.scores.log_loss, each.scores.top1, seconds_text(each.seconds)),
        )
        for each in found.ranked
    )
    head = (
        f"a linear probe on frozen features at {found.image_size} px, judged on "
        f"{counted(found.images, 'image')} of val (95 %)"
    )
    left_out = (wrap(f"left out {name}: {why}", line_width()) for name, why in found.left_out)
    lines = [head, "", *table(COLUMNS, rows, spare=("params",)), "", *chain.from_iterable(left_out)]
    return [*lines, *wrap(_foretold(found.foretold), line_width()), *_next(found)]


def _foretold(found: Foretold) -> str:
    pairs = f"{counted(found.pairs, 'pair')} of backbones"
    sets = counted(found.data_sets, "data set")
    if found.tau is None:
        return f"how well this foretells fine-tuning is not known: recorded studies have {pairs}"
    return (
        f"how well such rankings foretold fine-tuning: Kendall's tau {found.tau:+.2f} over {pairs} "
        f"on {sets} (1: the same order)"
    )


def _next(found: Probe) -> list[str]:
    """Name the search whose first points this order decides, or one training of the best."""
    data = shlex.quote(found.data)
    if found.space:
        return [
            f"next: carray tune {data} --space {shlex.quote(found.space)}  (starts in this order)"
        ]
    best = f"--set backbone={found.ranked[0].backbone} --set image_size={found.image_size}"
    return [
        f"next: carray train {data} {best}",
        "a search tries its starting points in this order: carray tune DIR --space YOURS",
    ]
