"""Where weights come from, whether they fit, and that no pickle runs."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from carray.config import TrialConfig, build_config
from carray.errors import WeightsError
from carray.models.backbones import build_backbone, input_spec
from carray.models.classifier import build_classifier, check_backbone
from carray.models.hub import hub_error
from carray.models.weights import check_obtainable, find_weights, obtain_weights, read_weights

SMALL = "resnet10t"


def backbone_state(name: str = SMALL, seed: int = 5) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        k: v.clone() for k, v in build_backbone(TrialConfig(backbone=name)).state_dict().items()
    }


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A small backbone's weights with a classifier of 1,000 classes, as timm publishes them."""
    return backbone_state() | {"fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}


def config_of(pretrained: bool | str, name: str = SMALL) -> TrialConfig:
    return build_config({"backbone": name, "pretrained": pretrained, "image_size": 64})


def assert_loaded(config: TrialConfig, state: dict[str, torch.Tensor]) -> str:
    check_backbone(config)
    built = build_classifier(config, 3)
    for name, value in built.classifier.backbone.state_dict().items():
        assert torch.equal(value, state[name]), name
    return built.initialisation


def test_a_safetensors_file_is_loaded_without_its_classifier(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    save_file(state, tmp_path / "mine.safetensors")
    told = assert_loaded(config_of(str(tmp_path / "mine.safetensors")), state)
    assert told.startswith("mine:")
    assert len(told) == len("mine:") + 8


def test_a_pth_file_is_loaded_also_when_nested(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    nested = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}
    torch.save(nested, tmp_path / "mine.pth")
    assert_loaded(config_of(str(tmp_path / "mine.pth")), state)


@pytest.mark.parametrize(
    ("key", "prefix", "name"),
    [
        ("", "_orig_mod.", "orig_mod.pth"),
        ("state_dict", "module._orig_mod.", "ddp_compiled.pth"),
        ("state_dict", "model.", "lightning.pth"),
        ("net", "", "net_key.pth"),
        ("model_state_dict", "", "tutorial.pt"),
        ("", "", "pytorch_model.bin"),
        ("", "encoder.", "own_name.pth"),
        ("", "module.encoder.backbone.", "several.pth"),
        ("", "module.", "ddp.safetensors"),
        ("", "module.model.", "lightning.safetensors"),
    ],
)
def test_wrappers_and_prefixes_are_taken_off(
    tmp_path: Path, state: dict[str, torch.Tensor], key: str, prefix: str, name: str
) -> None:
    inner = {f"{prefix}{k}": v for k, v in state.items()}
    if name.endswith(".safetensors"):
        save_file(inner, tmp_path / name)
    else:
        torch.save({key: inner, "epoch": 5} if key else inner, tmp_path / name)
    assert_loaded(config_of(str(tmp_path / name)), state)


def test_the_counter_of_averaged_weights_is_left_out(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    averaged = {f"module.{k}": v for k, v in state.items()} | {"n_averaged": torch.tensor(7)}
    torch.save(averaged, tmp_path / "swa.pth")
    assert_loaded(config_of(str(tmp_path / "swa.pth")), state)


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    torch.save({"model.a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "two.pth")
    assert read_weights(tmp_path / "two.pth").keys() == {"model.a", "b"}


def test_a_file_of_an_older_timm_is_found_by_both_names(tmp_path: Path) -> None:
    file = tmp_path / "tv_resnet50.pth"
    file.touch()
    assert find_weights("resnet50.tv_in1k", True, tmp_path) == file
    assert find_weights("tv_resnet50", True, tmp_path) == file


@pytest.mark.parametrize("stem", ["resnet10t.c3_in1k", "resnet10t"])
def test_true_looks_in_the_folder_of_weights_first(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, stem: str
) -> None:
    monkeypatch.setenv("CARRAY_WEIGHTS", str(tmp_path))
    save_file(state, tmp_path / f"{stem}.safetensors")
    assert_loaded(config_of(True), state)


def test_a_folder_that_is_named_comes_before_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {name: backbone_state(seed=seed) for seed, name in enumerate(("env", "one", "two"))}
    for name, own in states.items():
        (tmp_path / name).mkdir()
        save_file(own, tmp_path / name / f"{SMALL}.safetensors")
        (tmp_path / name / f"{SMALL}.json").write_text(
            json.dumps({"mean": [ord(name[0])] * 3, "std": [1] * 3})
        )
    monkeypatch.setenv("CARRAY_WEIGHTS", str(tmp_path / "env"))
    config = config_of(True)
    for name in ("one", "two", "one"):
        folder = tmp_path / name
        check_backbone(config, 3, folder)
        built = build_classifier(config, 3, folder).classifier.backbone.state_dict()
        assert all(torch.equal(value, states[name][key]) for key, value in built.items())
        assert input_spec(config, folder).mean[0] == ord(name[0])
    assert_loaded(config, states["env"])


def test_the_tagged_file_wins_over_the_untagged(tmp_path: Path) -> None:
    for stem in ("resnet10t", "resnet10t.c3_in1k"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{stem}.safetensors")
    found = find_weights(SMALL, f"local-dir:{tmp_path}")
    assert found is not None
    assert found.name == "resnet10t.c3_in1k.safetensors"


def test_a_folder_without_the_backbone_says_what_it_holds(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"holds no weights.*other\.safetensors.*save them"):
        check_backbone(config_of(f"local-dir:{tmp_path}"))


def test_weights_of_another_backbone_are_refused_naming_both_sides(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    file = tmp_path / "narrow.safetensors"
    save_file(state, file)
    with pytest.raises(WeightsError, match=r"narrow\.safetensors don't fit backbone 'resnet18'"):
        check_backbone(config_of(str(file), "resnet18"))


def test_weights_with_a_tensor_too_many_are_refused(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    file = tmp_path / "deeper.safetensors"
    save_file(state | {"layer5.0.conv1.weight": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match=r"layer5\.0\.conv1\.weight is not in the backbone"):
        check_backbone(config_of(str(file)))


def test_weights_with_a_tensor_too_few_are_refused(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    file = tmp_path / "holed.safetensors"
    save_file({k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}, file)
    with pytest.raises(WeightsError, match=r"layer1\.0\.conv1\.weight is not in the file"):
        build_classifier(config_of(str(file)), 3)


def test_position_embeddings_are_adapted_to_the_size(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    with torch.random.fork_rng():
        whole = build_backbone(TrialConfig(backbone=name, image_size=224)).state_dict()
    save_file(dict(whole), tmp_path / f"{name}.safetensors")
    config = config_of(f"local-dir:{tmp_path}", name)
    classifier = build_classifier(config, 3).classifier
    assert classifier.backbone.pos_embed.shape == (1, 17, 192)  # type: ignore[union-attr]
    assert classifier(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


class Trap:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["CARRAY_TEST_TRAP"],)


def test_a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sprung = tmp_path / "sprung"
    monkeypatch.setenv("CARRAY_TEST_TRAP", str(sprung))
    file = tmp_path / "trap.pth"
    torch.save({"fc.weight": Trap()}, file)
    with pytest.raises(WeightsError, match=r"a pickle may run any code"):
        read_weights(file)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap()))  # the trap works
    assert sprung.exists()


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth"])
def test_a_broken_file_is_said_in_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(WeightsError, match=rf"{name}"):
        check_backbone(config_of(str(tmp_path / name)))


@pytest.mark.parametrize("pretrained", ["weights.bin", "yes"])
def test_a_value_that_is_no_file_of_weights_is_refused(pretrained: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"must be true, false") as caught:
        obtain_weights(SMALL, pretrained, tmp_path)  # which isn't looked in
    assert str(tmp_path) not in str(caught.value)


def test_without_a_network_the_error_says_how_to_bring_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE.*bring resnet10t\.c3_in1k\.safetens"):
        check_backbone(config_of(True))


def test_weights_that_nobody_publishes_are_asked_for_by_their_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CARRAY_WEIGHTS", raising=False)
    with pytest.raises(
        WeightsError, match=r"none are public\); bring mobilenetv2_035\.safetensors"
    ):
        obtain_weights("mobilenetv2_035", True)
    with pytest.raises(WeightsError, match="none are public"):
        check_obtainable("mobilenetv2_035", True)  # with a network too
    with pytest.raises(WeightsError, match=r"or false; the folder .*gone isn't there$"):
        obtain_weights("mobilenetv2_035", True, tmp_path / "gone")
    with pytest.raises(WeightsError, match=r"or false; the folder w isn't there$"):
        obtain_weights("mobilenetv2_035", True, "w")  # a name that is in any sentence
    monkeypatch.setenv("CARRAY_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=rf"; the folder {tmp_path} holds none for it$"):
        obtain_weights("mobilenetv2_035", True)


def test_a_hub_that_does_not_answer_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "can't be reached" in hub_error("http://127.0.0.1:9")
