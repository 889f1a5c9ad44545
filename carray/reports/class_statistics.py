"""What a data set is like, as lines: images a class, whether they are even, sizes, brightness."""

from __future__ import annotations

import math
from textwrap import wrap

from carray.data.summary import ClassStatistics, ImageStatistics
from carray.reports.table import line_width, table

BAR = 40  # letters of the longest
CURE = (
    "loss.class_weights, class_sampling or loss.logit_adjustment give rare classes more weight, "
    "and val/macro_f1 or val/balanced_accuracy judge all alike"
)


def statistics_lines(found: ClassStatistics) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    most = max(count for _, _, count in found.histogram)
    lines = [
        "",
        f"images a class, all splits together: mean {found.mean:.1f}, median {found.median:g}, "
        f"from {found.smallest} to {found.largest}",
        f"{'images':>13}  classes",
    ]
    for low, high, count in found.histogram:
        bar = "#" * -(-BAR * count // most)
        lines.append(f"  {low if low == high else f'{low}-{high}':>11}  {count:>4}  {bar}".rstrip())
    if found.is_imbalanced:
        ratio = "no training image" if math.isinf(found.ratio) else f"{found.ratio:.1f} : 1"
        lines.append(f"the classes are imbalanced in training ({ratio}):")
        lines += wrap(CURE, line_width(), initial_indent="  ", subsequent_indent="  ")
    return lines


def image_lines(found: ImageStatistics) -> list[str]:
    """Return how large, wide and bright the images are."""
    (narrow, width, wide), (low, height, high) = found.width, found.height
    rows = [
        ("width, pixels", f"{narrow}", f"{width:g}", f"{wide}"),
        ("height, pixels", f"{low}", f"{height:g}", f"{high}"),
        ("width / height", *(f"{value:.2f}" for value in found.aspect)),
    ]
    if found.brightness:
        rows.append((f"brightness of {found.sample}", *(f"{v:.2f}" for v in found.brightness)))
    return ["", *table(("images:<18", "least:>8", "median:>8", "most:>8"), rows)]
