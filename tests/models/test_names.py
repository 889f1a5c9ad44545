"""timm's sources tell right names from misspelt ones; timm itself is asked about the latter."""

import subprocess
import sys

import pytest
import timm

from carray.errors import ConfigError
from carray.models import names
from carray.models.registry import check_name, known_backbones

RIGHT = ["resnet50", "mobilenetv2_100.ra_in1k", "small_car_cnn", "vit_tiny_patch16_224"]


def test_right_names_need_neither_timm_nor_torch() -> None:
    told = f"import sys\nfrom carray.models.names import refuse_unknown\nrefuse_unknown({RIGHT})"
    told += "\nassert not {'timm', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", told], check=True)


def test_timm_need_not_be_asked_about_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("carray.models.registry.check_name", asked.append)
    monkeypatch.setattr(names, "_sources", lambda sources=names._sources(): sources)
    names.refuse_unknown(known_backbones())
    assert asked == []
    tagged = timm.list_pretrained()
    names.refuse_unknown(tagged)
    assert len(asked) < len(tagged) / 20


def test_timm_is_asked_about_what_its_sources_do_not_show() -> None:
    hidden = "vit_base_patch16_clip_quickgelu_224.openai"  # timm makes this tag when imported
    names.refuse_unknown([hidden])
    check_name(hidden)


@pytest.mark.parametrize("wrong", ["resnt50", "resnet50.a1_in9k", "re", "", "_cfg", ".a1_in1k"])
def test_wrong_names_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        names.refuse_unknown([wrong])


def test_the_nearest_names_are_told() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet50', 'resnet50t' or 'resnet50s'"):
        names.refuse_unknown(["resnt50"])
