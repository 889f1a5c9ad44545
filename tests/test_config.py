"""What a configuration refuses, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest

from carray.config import OptimizerConfig, TrialConfig, build_config, flatten
from carray.errors import ConfigError

NUMBERS = [
    name
    for name, value in flatten(TrialConfig()).items()
    if isinstance(value, int | float) and not isinstance(value, bool)
]


@pytest.mark.parametrize("name", [*NUMBERS, "fold", "head.C", "augment.jitter"])
def test_true_is_no_number(name: str) -> None:
    for value, text in ((True, "true"), (False, "false")):
        with pytest.raises(ConfigError, match=f"^{name}={text}: it is no number: write one$"):
            build_config({name: value})


def test_what_may_be_true_is_taken() -> None:
    config = build_config({"pretrained": False, "augment.flip": False, "optimizer.args.eps": True})
    assert config.optimizer == OptimizerConfig(args={"eps": True})
    assert config.optimizer.args["eps"] is True
    assert (config.pretrained, config.augment.flip) == (False, False)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (
            {"pretrained": None},
            "pretrained=null: input should be a valid boolean or a valid string",
        ),
        (
            {"seed": None, "optimizer.lr": 11},
            "optimizer.lr=11: input should be less than or equal to 10; "
            "seed=null: input should be a valid integer",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_sentence(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(params)
    assert str(caught.value) == says
