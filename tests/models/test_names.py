"""What may be a backbone, told without timm: everything that timm builds, and no mistyped study."""

import timm

from carray.models.names import may_be_backbone
from carray.models.registry import known_backbones


def test_no_backbone_and_no_older_name_of_one_is_missed() -> None:
    ours = ("small_car_cnn", "resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k")
    older = timm.models.get_deprecated_models()
    unquoted = "vitamin_xlarge_336"  # its sources have it as a function alone
    for name in (*ours, unquoted, *sorted(known_backbones())[::9], *older):
        assert may_be_backbone(name), name


def test_a_name_that_timm_has_nowhere_is_none() -> None:
    assert not any(map(may_be_backbone, ("toycars-quik", "resnet1999", "autumn", "resnet1.")))
