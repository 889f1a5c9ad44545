"""Our own nets: timm's factory builds them, and their layers are the ones described."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import SqueezeExcite
from torch import nn

from carray.config import build_config
from carray.models.backbones import build_backbone, input_spec
from carray.models.classifier import Classifier, build_classifier, check_backbone
from carray.models.freezing import block_groups
from carray.models.scratch import ResidualBlock, SelfAttention

OWN = ("small_car_cnn", "baseline_cars_cnn", "improved_cars_cnn")


def on_meta(**params: object) -> nn.Module:
    with torch.device("meta"):
        return build_backbone(build_config({"pretrained": False, **params}))


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("head", ["linear", "ml_decoder"])
def test_the_one_factory_builds_it_at_any_size(name: str, head: str) -> None:
    for size in (64, 224):
        params = {"backbone": name, "pretrained": False, "image_size": size, "head.kind": head}
        check_backbone(build_config(params), 12)


def test_timm_itself_knows_the_names() -> None:
    model = timm.create_model("small_car_cnn", num_classes=5, squeeze_excite=True)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert set(OWN) <= set(timm.list_models("*_car*_cnn"))


def test_the_small_net_is_as_the_config_says() -> None:
    plain = build_classifier(
        build_config({"backbone": "small_car_cnn", "pretrained": False, "image_size": 32}), 12
    ).classifier
    widths = [m.out_channels for m in plain.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [32, 64, 128]
    assert plain.features(torch.zeros(2, 3, 32, 32)).shape == (2, 256)
    other = on_meta(
        backbone="small_car_cnn",
        **{
            "scratch.filters": 8,
            "scratch.kernel_size": 7,
            "scratch.dense_units": 24,
            "scratch.batch_norm": False,
            "scratch.squeeze_excite": True,
        },
    )
    convs = [m for m in other.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (7, 7)]
    assert [m.out_channels for m in convs] == [8, 16, 32]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in other.modules())
    assert other.head_hidden_size == 24


def test_the_cars_nets_have_the_assignments_layers() -> None:
    baseline, improved = on_meta(backbone="baseline_cars_cnn"), on_meta(backbone=OWN[2])
    dense = [(m.in_features, m.out_features) for m in baseline.modules() if type(m) is nn.Linear]
    assert dense == [(12544, 8192), (8192, 1024), (1024, 512), (512, 256)]
    drops = [m.p for m in baseline.modules() if isinstance(m, nn.Dropout)]
    assert drops[0] == 0.5
    assert drops[-1] == pytest.approx(0.3)

    def convs(net: nn.Module) -> list[int]:
        return [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)]

    assert convs(baseline) == [16, 32, 64, 128, 256]
    assert convs(improved) == [16, 32, 32, 32, 64, 64, 64, 128, 256]


def test_depth_residual_blocks_and_attention_are_parameters_of_all_three() -> None:
    for name, own in zip(OWN, (3, 5, 5), strict=True):
        for depth, side in ((2, 8), (own + 2, 32 // 2**own)):
            params = {"scratch.depth": depth, "scratch.residual_blocks": "late"}
            net = on_meta(backbone=name, **params, **{"scratch.attention": "self_attention"})
            maps = net.forward_features(torch.empty(2, 3, 32, 32, device="meta"))
            assert maps.shape[2:] == (side, side)  # further blocks keep the map's size
            followed = [any(isinstance(m, ResidualBlock) for m in block) for block in net.blocks]
            half = -(-depth // 2)
            assert followed == [False] * half + [True] * (depth - half)
            assert isinstance(net.blocks[-1][-1], SelfAttention)
        excited = on_meta(backbone=name, **{"scratch.attention": "squeeze_excite"})
        assert sum(isinstance(m, SqueezeExcite) for m in excited.modules()) == own


def test_attention_begins_as_the_identity_and_learns() -> None:
    attention, maps = SelfAttention(16), torch.randn(2, 16, 3, 4)
    assert torch.equal(attention(maps), maps)
    (attention(maps) * torch.randn(2, 16, 3, 4)).sum().backward()
    assert attention.share.grad is not None and attention.share.grad.abs() > 0
    attention.share.data.fill_(1.0)
    moved = maps.clone()
    moved[..., 0, 0] += 1
    assert (attention(moved) - attention(maps))[..., 2, 3].abs().max() > 1e-4  # far from there


def test_the_cars_nets_see_images_from_minus_one_to_one() -> None:
    config = build_config({"backbone": "baseline_cars_cnn", "pretrained": False})
    spec = input_spec(config)
    assert (0 - spec.mean[0]) / spec.std[0] == -1
    assert (1 - spec.mean[0]) / spec.std[0] == 1


@pytest.mark.parametrize("name", OWN)
def test_block_groups_go_from_the_stem_to_the_dense_layers(name: str) -> None:
    with torch.device("meta"):
        backbone = Classifier(build_config({"backbone": name, "pretrained": False}), 3).backbone
    groups = block_groups(backbone)
    assert groups[0][0].startswith("blocks.0.")
    assert all(parameter.startswith("neck.") for parameter in groups[-1])
    assert sum(map(len, groups)) == len(list(backbone.parameters()))
