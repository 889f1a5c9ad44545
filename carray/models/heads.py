"""Heads: what turns a backbone's features into logits."""

from __future__ import annotations

from timm.layers.ml_decoder import MLDecoder
from torch import Tensor, nn

from carray.config import HeadConfig
from carray.models.fitted_heads import build_fitted_head

MAX_GROUPS = 100  # ML-Decoder's paper: more group queries gain nothing


def build_head(
    head: HeadConfig, pooled_width: int, map_width: int, num_classes: int, dropout: float
) -> nn.Module:
    """Build the head; `ml_decoder` reads the feature map, the others the pooled features.

    Returns a module from (images, pooled_width), or from (images, positions, map_width), to
    (images, num_classes).
    """
    if head.kind == "ml_decoder":
        return DecoderHead(head, map_width, num_classes, dropout)
    if head.kind == "mlp":
        return _mlp(head, pooled_width, num_classes, dropout)
    if head.kind in ("random_forest", "knn"):
        return build_fitted_head(head.kind, pooled_width, num_classes)
    norm = [nn.BatchNorm1d(pooled_width, affine=False)] if head.kind == "bn_linear" else []
    return nn.Sequential(*norm, nn.Dropout(dropout), _last_layer(pooled_width, num_classes))


def _mlp(head: HeadConfig, width: int, num_classes: int, dropout: float) -> nn.Module:
    norm = [nn.BatchNorm1d(head.hidden)] if head.batch_norm else []
    return nn.Sequential(
        nn.Linear(width, head.hidden, bias=not head.batch_norm),
        *norm,
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        _last_layer(head.hidden, num_classes),
    )


def _last_layer(width: int, num_classes: int) -> nn.Linear:
    """Start near even odds, so that the first steps don't shake the backbone."""
    layer = nn.Linear(width, num_classes)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


class DecoderHead(nn.Module):
    """ML-Decoder: group queries attend to every position of the feature map.

    Ridnik et al., "ML-Decoder: Scalable and Versatile Classification Head", WACV 2023.
    """

    def __init__(self, head: HeadConfig, width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        groups = head.groups or min(MAX_GROUPS, num_classes)
        self.inner = MLDecoder(num_classes, groups, head.decoder_width, width)
        layer = self.inner.decoder.layers[0]
        if head.decoder_heads != layer.multihead_attn.num_heads:  # timm's has no argument for it
            layer.multihead_attn = nn.MultiheadAttention(
                head.decoder_width, head.decoder_heads, layer.multihead_attn.dropout
            )
        self.inner.decoder = _OneLayer(layer)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BPD: Tensor) -> Tensor:
        """Return logits (B, C) of feature positions (B, P, D)."""
        logits: Tensor = self.inner(self.dropout(tokens_BPD))
        return logits


class _OneLayer(nn.Module):
    """The decoder's only layer; torch's own stack passes it arguments that timm's doesn't take."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, target: Tensor, memory: Tensor) -> Tensor:
        out: Tensor = self.layer(target, memory)
        return out
