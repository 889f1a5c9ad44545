"""Every head on every layout of features."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from carray.config import build_config
from carray.errors import ConfigError
from carray.models.classifier import Classifier, build_classifier, check_backbone

LAYOUTS = {  # maps before tokens, channels last, tokens, a head of timm's own before the pooling
    "resnet10t": 64,
    "swin_s3_tiny_224": 64,
    "vit_tiny_patch16_224": 64,
    "mobilenetv3_small_050": 64,
}
HEADS = ("linear", "bn_linear", "mlp", "ml_decoder")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", LAYOUTS)
def test_every_head_fits_every_layout(backbone: str, head: str) -> None:
    config = build_config(
        {
            "backbone": backbone,
            "pretrained": False,
            "image_size": LAYOUTS[backbone],
            "head.kind": head,
            "head.decoder_width": 64,
        }
    )
    with torch.device("meta"):
        classifier = Classifier(config, 7)
        assert classifier(torch.empty(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_learns_and_drops_out(head: str) -> None:
    config = build_config(
        {
            "backbone": "resnet10t",
            "pretrained": False,
            "head.kind": head,
            "dropout": 0.5,
            "head.decoder_width": 64,
        }
    )
    classifier = build_classifier(config, 5).classifier
    assert any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in classifier.head.modules())
    logits = classifier(torch.randn(3, 3, 64, 64))
    logits.square().sum().backward()
    last = [p for p in classifier.head.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in last)


def test_ml_decoder_takes_the_wanted_number_of_groups() -> None:
    params = {"backbone": "resnet10t", "head.kind": "ml_decoder", "head.decoder_width": 64}
    with torch.device("meta"):
        wide = Classifier(build_config(params), 196)
        few = Classifier(build_config({**params, "head.groups": 8}), 196)
    assert wide.head.inner.query_embed.weight.shape[0] == 100  # type: ignore[union-attr]
    assert few.head.inner.query_embed.weight.shape[0] == 8  # type: ignore[union-attr]
    assert few(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 196)


def test_the_same_seed_builds_the_same_classifier() -> None:
    config = build_config({"backbone": "resnet10t", "pretrained": False, "seed": 4})
    torch.manual_seed(1)
    first = build_classifier(config, 5).classifier.state_dict()
    torch.manual_seed(2)
    second = build_classifier(config, 5)
    assert second.initialisation == "random:4"
    assert all(torch.equal(v, first[k]) for k, v in second.classifier.state_dict().items())


def test_heads_of_one_seed_begin_alike_in_trials_of_different_seeds() -> None:
    own = {"backbone": "resnet10t", "pretrained": False, "head.kind": "mlp", "head.seed": 7}
    configs = [build_config({**own, "seed": seed}) for seed in (1, 2)]
    first, second = (build_classifier(each, 5).classifier.state_dict() for each in configs)
    alike = {name.partition(".")[0] for name, v in first.items() if torch.equal(v, second[name])}
    differing = {name for name, v in first.items() if not torch.equal(v, second[name])}
    assert "head" in alike
    assert differing and all(name.startswith("backbone.") for name in differing)


def test_batch_norm_over_one_image_is_refused() -> None:
    config = build_config({"pretrained": False, "head.kind": "mlp", "device_batch_size": 1})
    with pytest.raises(ConfigError, match=r"device_batch_size=1 must be at least 2"):
        check_backbone(config)


@pytest.mark.parametrize("heads", [1, 8])
def test_ml_decoder_has_as_many_heads_of_attention_as_asked(heads: int) -> None:
    params = {"backbone": "resnet10t", "pretrained": False, "head.kind": "ml_decoder"}
    config = build_config({**params, "head.decoder_width": 64, "head.decoder_heads": heads})
    classifier = build_classifier(config, 5).classifier
    (attention,) = (m for m in classifier.modules() if isinstance(m, nn.MultiheadAttention))
    assert attention.num_heads == heads
    assert classifier(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
