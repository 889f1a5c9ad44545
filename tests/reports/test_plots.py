"""The picture draws what there is, from one epoch to a whole study with an ensemble."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from carray.errors import RecordError
from carray.reports.pictures.plots import study_picture
from tests.reports.studies import add_ensemble, make_study


def colours_of(path: Path) -> set[tuple[int, int, int]]:
    with Image.open(path) as image:
        assert image.size[0] == 1500
        found = image.convert("RGB").getcolors(maxcolors=1_000_000)
    assert found is not None
    return {colour for count, colour in found if count > 50}


def test_each_backbone_has_its_colour(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    add_ensemble(folder)
    colours = colours_of(study_picture(folder))
    assert {(0, 0x72, 0xB2), (0xD5, 0x5E, 0), (0, 0x9E, 0x73)} <= colours


@pytest.mark.parametrize("trials", [1, 2])
def test_a_study_that_has_just_begun_is_drawn(tmp_path: Path, trials: int) -> None:
    folder = make_study(tmp_path, trials=trials, refits=0)
    out = study_picture(folder, tmp_path / "somewhere" / "else.png")
    assert len(colours_of(out)) >= 3


def test_a_study_without_an_epoch_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="has no epoch to draw yet"):
        study_picture(make_study(tmp_path, trials=0, refits=0))
