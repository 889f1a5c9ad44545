"""A backbone's layers, parameters and multiply-adds as lines."""

from __future__ import annotations

from carray.models.summary import LayerRow, ModelSummary
from carray.reports.table import table

LAYERS = ("layer:<26", "kind:<26", "comes out:<18", "params:>13,", "M mult-adds:>13,.1f")


def summary_lines(found: ModelSummary) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    return [
        f"{found.backbone} at {found.image_size} px: {found.parameters / 1e6:.2f} M parameters, "
        f"{found.multiply_adds / 1e9:.3f} G multiply-adds an image, {found.features} features",
        "",
        *table(LAYERS, (_cells(row) for row in found.layers)),
        "",
        "next:",
        f"  carray train DIR --set backbone={found.backbone} --set image_size={found.image_size}",
    ]


def _cells(row: LayerRow) -> tuple[object, ...]:
    shape = " x ".join(map(str, row.shape))
    return row.name, row.kind, shape, row.parameters, row.multiply_adds / 1e6
