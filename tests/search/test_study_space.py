"""Which space a study searches where none is named, and that it says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from carray.data.manifest import Manifest
from carray.runs_folder import RunsFolder
from carray.search.request import StudyRequest
from carray.search.setup import StudySetup
from carray.search.space.yaml_reader import parse_space
from carray.search.study_space import default_space


@pytest.fixture
def photographs(toy_manifest: Manifest) -> Manifest:
    """The toy cars under other names."""
    names = tuple(f"Audi {number}" for number in range(len(toy_manifest.classes)))
    return replace(toy_manifest, classes=names)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with weights of two backbones, and no hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CARRAY_WEIGHTS", raising=False)
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("mobilenetv2_100", "convnext_tiny"):
        save_file({"one": np.zeros(1, np.float32)}, folder / f"{name}.safetensors")
    return folder


def test_the_toy_cars_are_learned_from_scratch(toy_manifest: Manifest) -> None:
    space, note = default_space(toy_manifest, None, has_gpu=True)
    assert (space.name, note) == ("quick", "space quick: these are the toy cars")


@pytest.mark.parametrize(
    ("has_gpu", "name", "backbone", "starts"),
    [(False, "photographs", "mobilenetv2_100", 1), (True, "backbones", "convnext_tiny", 1)],
)
def test_photographs_get_the_backbones_whose_weights_can_be_had(
    photographs: Manifest, weights: Path, has_gpu: bool, name: str, backbone: str, starts: int
) -> None:
    space, note = default_space(photographs, weights, has_gpu)
    assert space.name == name
    assert list(space.blocks) == [backbone] and len(space.starts) == starts
    assert note.startswith(f"space {name}: photographs, {'a' if has_gpu else 'no'} GPU; of its")
    assert "HF_HUB_OFFLINE is set" in note and note.endswith("--space names another")
    assert parse_space(space.text, name).hash == space.hash, "its copy reads as what it is"


def test_without_any_weights_it_says_what_photographs_lack(
    photographs: Manifest, weights: Path, tmp_path: Path
) -> None:
    space, note = default_space(photographs, tmp_path / "none", has_gpu=False)
    assert space.name == "quick"
    assert "no pretrained weights can be had (HF_HUB_OFFLINE is set)" in note
    assert "--weights or $CARRAY_WEIGHTS" in note


def test_a_study_without_a_named_space_goes_on_with_the_one_it_was_begun_with(
    toy_data: Path, tmp_path: Path
) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(
        "version: 1\nfixed: {backbone: test_vit}\nsearch: {dropout: {uniform: [0, 1e-1]}}"
    )
    asked = StudyRequest(data=toy_data, name="s", runs=str(tmp_path / "runs"))
    fresh = StudySetup.resolve(asked)
    assert (fresh.space.name, fresh.study.name) == ("quick", "s")
    begun = StudySetup.resolve(replace(asked, space=str(own)))
    begun.folder.path.mkdir(parents=True)
    begun.folder.space_file.write_text(begun.space.text)
    killed = StudySetup.resolve(asked)  # before its record
    assert killed.space.hash == fresh.space.hash
    begun.study.write(begun.folder.record_file)
    again = StudySetup.resolve(asked)
    assert again.space.hash == begun.space.hash
    assert again.notes == ["space mine: study s was begun with it"]
    fewer = StudySetup.resolve(replace(asked, trials=2))
    assert fewer.study.trials == begun.study.trials
    assert fewer.notes[1] == "--trials 2 ends no study early: this one was begun with 30"
    assert len(StudySetup.resolve(replace(asked, trials=31)).notes) == 1
    assert RunsFolder.at(tmp_path / "runs").study("s").record().space_file == str(own)
