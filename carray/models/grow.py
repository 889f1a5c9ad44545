"""One class more: a classifier's weights with a wider last layer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, cat
from torch.nn.functional import normalize

from carray.config import HeadConfig
from carray.errors import ConfigError

GROWING_HEADS = ("linear", "linear_probe", "bn_linear", "mlp")  # they end in a linear layer


def check_can_grow(head: HeadConfig, trial: str) -> None:
    """Refuse a head whose classes can't be told apart in its last layer.

    Raises:
        ConfigError: its kind is none of `GROWING_HEADS`.
    """
    if head.kind not in GROWING_HEADS:
        raise ConfigError(
            f"{trial} has a head of kind {head.kind!r}, which can't grow by a class: take a model "
            f"with one of {', '.join(GROWING_HEADS)}, or train anew"
        )


def grown_head(head: HeadConfig) -> HeadConfig:
    """Return the head that goes on training: a probe becomes the linear layer that it is."""
    return head.model_copy(update={"kind": "linear"}) if head.kind == "linear_probe" else head


def last_layer(state: Mapping[str, Tensor], num_classes: int) -> str:
    """Return the name of the head's last linear layer, as in `head.1`."""
    names = [name for name in state if name.startswith("head.") and name.endswith(".weight")]
    last = [name for name in names if len(state[name]) == num_classes and state[name].ndim == 2][-1]
    return last.removesuffix(".weight")


def grown_state(
    state: Mapping[str, Tensor], num_classes: int, new_BD: Tensor, old_BD: Tensor
) -> dict[str, Tensor]:
    """Return a classifier's state with one class more, the last; the old rows are kept.

    The new row is imprinted (Qi et al., "Low-Shot Learning with Imprinted Weights", CVPR 2018):
    it points from the mean of what the last layer sees of old classes, `old_BD`, to that of the new
    class, `new_BD`, is as long as the old rows, and says of that mean what the old rows do.
    """
    layer = last_layer(state, num_classes)
    weight_CD, bias_C = state[f"{layer}.weight"].float(), state[f"{layer}.bias"].float()
    middle_D = old_BD.mean(0)
    length = (weight_CD - weight_CD.mean(0)).norm(dim=1).mean()
    row_D = weight_CD.mean(0) + length * normalize(new_BD.mean(0) - middle_D, dim=0)
    usual = (weight_CD @ middle_D + bias_C).mean()
    wider = dict(state)
    wider[f"{layer}.weight"] = cat([weight_CD, row_D[None]])
    wider[f"{layer}.bias"] = cat([bias_C, (usual - row_D @ middle_D)[None]])
    return wider
