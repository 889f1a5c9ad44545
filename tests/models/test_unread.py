"""Settings without effect are told, those that some trial reads are not."""

from __future__ import annotations

import pytest

from carray.config import build_config, config_paths
from carray.models.unread import READ_BY, unread_of


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"head.hidden": 64}, ["head.hidden changes nothing: only head.kind mlp reads it"]),
        ({"head.hidden": 64, "head.kind": "mlp"}, []),
        (
            {"augment.mix_prob": 0.5},
            ["augment.mix_prob changes nothing: only augment.mixup or augment.cutmix reads it"],
        ),
        ({"augment.mix_prob": 0.5, "augment.cutmix": 1.0}, []),
        (
            {"scratch.depth": 4},
            [
                "scratch.depth changes nothing: only backbone small_car_cnn or baseline_cars_cnn "
                "or improved_cars_cnn reads it"
            ],
        ),
        ({"scratch.depth": 4, "backbone": "baseline_cars_cnn", "pretrained": False}, []),
        ({"optimizer.lr": 0.1}, []),
    ],
)
def test_a_setting_that_another_one_switches_off_is_told(
    settings: dict[str, object], told: list[str]
) -> None:
    assert unread_of(build_config(settings)) == told


def test_every_name_is_a_settings() -> None:
    readers = {reader for each in READ_BY.values() for reader in each}
    assert {*READ_BY, *readers} <= set(config_paths())
