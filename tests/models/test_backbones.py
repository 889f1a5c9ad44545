"""Names, sizes and what backbones expect of their input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from carray.config import build_config
from carray.errors import ConfigError
from carray.models.backbones import build_backbone, feature_width, input_spec, shapes_alone
from carray.models.classifier import build_classifier, check_backbone
from carray.models.recipes import count_parameters
from carray.models.registry import check_name, full_name, source_config


def test_a_misspelt_backbone_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown backbone 'resent18'; did you mean 'resnet18'"):
        check_name("resent18")


def test_an_unknown_tag_is_refused_with_the_tags_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no weights tagged 'nope'.*resnet18\.a1_in1k"):
        check_name("resnet18.nope")


@pytest.mark.parametrize("wrong", ["resnt50", "resnet50.a1_in9k", "re", "", "_cfg", ".a1_in1k"])
def test_wrong_names_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        check_name(wrong)


def test_the_nearest_names_are_told() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet50', 'resnet50t' or 'resnet50s'"):
        check_name("resnt50")


@pytest.mark.parametrize(
    ("old", "present"),
    [
        ("convnext_base_384_in22ft1k", "convnext_base.fb_in22k_ft_in1k_384"),
        ("tv_resnet50", "resnet50.tv_in1k"),
        ("efficientnet_b2a", "efficientnet_b2.ra_in1k"),
        ("hf-hub:timm/resnet18.tv_in1k", "resnet18.tv_in1k"),
    ],
)
def test_a_name_of_an_older_timm_is_the_present_one(old: str, present: str) -> None:
    check_name(old)
    assert full_name(old) == present
    assert source_config(old) == source_config(present)


def test_the_present_name_is_said(caplog: pytest.LogCaptureFixture) -> None:
    config = {"backbone": "mnasnet_a1", "pretrained": False, "image_size": 32}
    with caplog.at_level("INFO", logger="carray"):
        check_backbone(build_config(config))
    assert "'mnasnet_a1' is what timm calls 'semnasnet_100' now" in caplog.text


def test_an_old_name_builds_the_present_backbone() -> None:
    old, present = (
        build_backbone(build_config({"backbone": name})).state_dict()
        for name in ("mnasnet_a1", "semnasnet_100")
    )
    assert old.keys() == present.keys()
    assert count_parameters("mnasnet_a1") == count_parameters("semnasnet_100")


def test_a_model_of_the_hub_that_cant_be_had_names_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    said = r"'hf-hub:someone/cars' can't be had from the hub \(HF_HUB_OFFLINE.*set pretrained to it"
    with pytest.raises(ConfigError, match=said):
        check_name("hf-hub:someone/cars")


def test_the_hub_by_its_old_name_is_answered_with_the_new_one() -> None:
    with pytest.raises(ConfigError, match="write hf-hub:someone/cars"):
        check_name("hf_hub:someone/cars")


def test_a_model_of_the_hub_is_built_as_its_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--cars" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (refs := snapshot.parents[1] / "refs").mkdir()
    (refs / "main").write_text("0" * 40)
    wanted = {"architecture": "resnet10t", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (snapshot / "config.json").write_text(json.dumps(wanted))
    state = build_backbone(build_config({"backbone": "resnet10t"})).state_dict()
    save_file(state, snapshot / "model.safetensors")
    config = build_config({"backbone": "hf-hub:someone/cars", "image_size": 32})
    check_backbone(config)
    assert input_spec(config).mean[0] == 0.1
    built = build_classifier(config, 3)
    assert built.initialisation.startswith("cars:")
    loaded = built.classifier.backbone.state_dict()
    assert torch.equal(loaded["conv1.0.weight"], state["conv1.0.weight"])


@pytest.mark.parametrize(
    "right",
    [
        *("resnet50", "mobilenetv2_100.ra_in1k", "vit_tiny_patch16_224", "small_car_cnn"),
        "vit_base_patch16_clip_quickgelu_224.openai",
    ],
)
def test_names_of_timm_and_our_own_are_known_with_and_without_a_tag(right: str) -> None:
    check_name(right)


def test_a_name_without_a_tag_gets_the_default_one() -> None:
    assert full_name("resnet18") == "resnet18.a1_in1k"
    assert full_name("resnet18.tv_in1k") == "resnet18.tv_in1k"


@pytest.mark.parametrize(("name", "mean"), [("mobilenetv2_100", 0.485), ("mobilenetv1_100", 0.5)])
def test_mean_and_std_are_the_weights_own(name: str, mean: float) -> None:
    spec = input_spec(build_config({"backbone": name, "pretrained": False, "image_size": 96}))
    assert spec.size == 96
    assert spec.mean[0] == mean


def test_mean_and_std_in_a_local_file_win_over_timm(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    save_file({"x": torch.zeros(1)}, file, {"mean": "[0.1, 0.2, 0.3]", "std": "[1, 1, 1]"})
    spec = input_spec(build_config({"backbone": "resnet18", "pretrained": str(file)}))
    assert spec.mean == (0.1, 0.2, 0.3)


def test_mean_and_std_are_read_from_json_beside_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    save_file({"x": torch.zeros(1)}, file)
    file.with_suffix(".json").write_text('{"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}')
    spec = input_spec(build_config({"backbone": "resnet18", "pretrained": str(file)}))
    assert spec.std == (0.2, 0.2, 0.2)


def test_a_vision_transformer_takes_the_image_size() -> None:
    config = build_config({"backbone": "vit_tiny_patch16_224", "image_size": 64})
    backbone = build_backbone(config)
    assert backbone(torch.zeros(2, 3, 64, 64)).shape == (2, feature_width(backbone))


def test_drop_path_reaches_backbones_that_have_it_and_spares_the_others() -> None:
    deep = build_backbone(build_config({"backbone": "resnet10t", "drop_path": 0.5}))
    assert any(type(module).__name__ == "DropPath" for module in deep.modules())
    with torch.device("meta"):
        plain = build_backbone(build_config({"backbone": "vgg11", "drop_path": 0.5}))
    assert not any(type(module).__name__ == "DropPath" for module in plain.modules())


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet", "test_nfnet"])
def test_without_memory_a_network_has_the_shapes_that_it_would_have(backbone: str) -> None:
    config = build_config({"backbone": backbone, "pretrained": False})
    with shapes_alone():
        shadow = build_backbone(config).state_dict()
    assert all(value.is_meta for value in shadow.values())
    built = build_backbone(config).state_dict()
    assert {k: v.shape for k, v in shadow.items()} == {k: v.shape for k, v in built.items()}
    assert any(value.any() for value in built.values()), "outside of it weights are drawn"


def test_a_size_that_a_backbone_cannot_see_is_refused_with_the_cure() -> None:
    config = build_config(
        {"backbone": "maxvit_nano_rw_256", "image_size": 100, "pretrained": False}
    )
    with pytest.raises(ConfigError, match=r"image_size=100.*such as the 256 of its weights"):
        check_backbone(config)
