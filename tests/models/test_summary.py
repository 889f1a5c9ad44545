"""A backbone's parameters and multiply-adds are those that are known of it."""

from __future__ import annotations

import pytest

from carray.errors import ConfigError
from carray.models.summary import summarise_model
from carray.reports.model_summary import summary_lines


def test_a_known_net_has_its_known_numbers() -> None:
    found = summarise_model("resnet18")
    assert (found.image_size, found.features) == (224, 512)
    assert found.parameters == 11_176_512
    assert found.multiply_adds == 1_813_561_344  # 1.814 G with the classifier's 0.0005
    assert sum(row.parameters for row in found.layers) == found.parameters
    assert {row.name: row.shape for row in found.layers}["layer4.1"] == (512, 7, 7)
    assert max(map(len, summary_lines(found))) <= 100


def test_the_size_counts_and_an_unknown_name_is_refused() -> None:
    small, large = summarise_model("small_car_cnn", 32), summarise_model("small_car_cnn", 64)
    assert large.multiply_adds == pytest.approx(4 * small.multiply_adds, rel=0.02)
    assert large.parameters == small.parameters
    with pytest.raises(ConfigError, match="unknown backbone 'resnet1999'"):
        summarise_model("resnet1999")
