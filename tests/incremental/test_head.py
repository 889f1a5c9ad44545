"""Heads that grow by a class: old logits stay, and the new one is said of its own images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from carray.config import HeadConfig, build_config
from carray.incremental.head import ClassMeans, expand_head, expanded_head_config, last_inputs
from carray.models.classifier import Classifier

TRAINABLE: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear"},
    "bn_linear": {"kind": "bn_linear"},
    "mlp": {"kind": "mlp", "hidden": 16},
    "linear_probe": {"kind": "linear_probe"},
}
GROUPS = (  # classes, group queries: what room timm's layer has for one class more
    (4, 0),  # each class has its query: a new one
    (5, 3),  # two columns a group, one is free
    (6, 3),  # none is free: a group more
    (7, 1),  # one query with all columns: as many queries as classes
    (12, 2),  # six columns a group: each group is split in two, and one more
    (10, 7),  # two columns a group; two groups were never used
)


def classifier(kind: dict[str, Any], num_classes: int) -> Classifier:
    """Return an untrained classifier whose head has weights of some size, in eval mode."""
    head = {f"head.{name}": value for name, value in kind.items()}
    config = build_config({"backbone": "test_efficientnet", "pretrained": False, **head})
    torch.manual_seed(1)
    built = Classifier(config, num_classes)
    for name, parameter in built.head.named_parameters():
        if parameter.ndim == 1 and "norm" not in name:
            torch.nn.init.normal_(parameter)
    return built.eval()


def images(count: int, shade: float) -> Tensor:
    noise = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, 64, 64, generator=noise) * 0.5 + shade


@pytest.mark.parametrize(
    ("head", "num_classes"),
    [pytest.param(head, 4, id=name) for name, head in TRAINABLE.items()]
    + [
        pytest.param(
            {"kind": "ml_decoder", "decoder_width": 32, "groups": groups},
            num_classes,
            id=f"{num_classes} classes in {groups} groups",
        )
        for num_classes, groups in GROUPS
    ],
)
def test_old_logits_stay_and_the_new_class_stands_out_on_its_own_images(
    head: dict[str, Any], num_classes: int
) -> None:
    old, old_images, new_images = classifier(head, num_classes), images(12, 0.0), images(8, 2.5)
    means = ClassMeans()
    with torch.inference_mode(), last_inputs(old.head, num_classes) as seen:
        before = [old(old_images), old(new_images)]
        for inputs, is_new in zip(seen, (False, True), strict=True):
            means.add(inputs, torch.full((len(inputs),), is_new))
    state = expand_head(old.state_dict(), num_classes, means)
    config = expanded_head_config(HeadConfig.model_validate(head), state)
    new = classifier(config.model_dump(), num_classes + 1)
    new.load_state_dict(state)
    with torch.inference_mode():
        after = [new(old_images), new(new_images)]
    for then, now in zip(before, after, strict=True):
        torch.testing.assert_close(now[:, :num_classes], then, rtol=1e-4, atol=1e-4)
    own = [float(logits[:, num_classes].mean()) for logits in after]
    assert own[0] == pytest.approx(float(before[0].mean()), abs=1e-3), "as likely as an old class"
    assert own[1] > own[0], "and likelier on its own images"


def test_nothing_listens_to_the_head_afterwards() -> None:
    built = classifier({"kind": "linear"}, 3)
    with last_inputs(built.head, 3) as seen:
        pass
    built(images(2, 0.0))
    assert seen == []


@pytest.mark.parametrize("num_classes", [2, 3, 7, 12, 20, 31])
def test_a_decoder_of_any_layout_takes_three_classes_more(num_classes: int) -> None:
    for groups in range(1, num_classes + 1):
        head = {"kind": "ml_decoder", "decoder_width": 8, "groups": groups}
        config = build_config({f"head.{name}": value for name, value in head.items()})
        grown, state = config.head, decoder_state(num_classes, groups)
        for more in range(3):
            queries = state["head.inner.query_embed.weight"]
            means = ClassMeans()
            for is_new in (False, True):
                means.add(torch.randn(2, *queries.shape), torch.full((2,), is_new))
            state = expand_head(state, num_classes + more, means)
            grown = expanded_head_config(grown, state)
            wanted = decoder_state(num_classes + more + 1, grown.groups)
            shapes = {name: value.shape for name, value in state.items()}
            assert shapes == {name: value.shape for name, value in wanted.items()}


def decoder_state(num_classes: int, groups: int) -> dict[str, Tensor]:
    """Return the part of timm's layer that has classes in it, as timm sizes it."""
    from timm.layers.ml_decoder import MLDecoder

    with torch.device("meta"):
        built = MLDecoder(num_classes, groups, 8, 4)
    names = ("query_embed.weight", "duplicate_pooling", "duplicate_pooling_bias")
    return {f"head.inner.{name}": torch.ones(built.state_dict()[name].shape) for name in names}
