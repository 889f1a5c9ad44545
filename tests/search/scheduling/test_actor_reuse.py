"""Trial actors are reused, and those that are starting come up."""

import os
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from carray.search.scheduling.actor_reuse import keep_starting_actors

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


def test_short_trials_leave_the_actors_that_are_starting_alone(
    ray_instance: None, tmp_path: Path
) -> None:
    class ShortTrial(tune.Trainable):  # type: ignore[misc]
        """Over at once: long before another process has started."""

        def step(self) -> dict[str, Any]:
            return {"process": os.getpid(), "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    keep_starting_actors()
    tuner = tune.Tuner(
        tune.with_resources(ShortTrial, {"cpu": 0.01}),
        param_space={"number": tune.grid_search(list(range(20)))},
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=2),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    processes = [result.metrics["process"] for result in tuner.fit()]
    assert len(processes) == 20
    assert len(set(processes)) == 2
