"""Several objectives of a study: a metric on `val`, then what a network costs on this machine.

Optuna is told the metric and the costs of each trial, and draws towards the front of those that
nothing beats in all. ASHA, the median rule, and what ends hopeless trials, hold a trial against
those whose networks cost at most as much. Refits and folds go by the metric alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from carray.config import TrialConfig
from carray.errors import ConfigError, RecordError, did_you_mean
from carray.files import write_json
from carray.metrics import OBJECTIVES, Objective
from carray.predictions.network_costs import COSTS, NetworkCosts, front_rows, network_of
from carray.progress import progress
from carray.records import StudyFolder, StudyRecord
from carray.search.request import StudyRequest
from carray.search.sampling.samplers import FOR_SEVERAL
from carray.search.space.space import SearchSpace

DRAWS = 200  # random ones, which tell what networks a space has
MOST_NETWORKS = 40  # that are timed before the first trial; others are once they are drawn


def with_objectives(
    request: StudyRequest, space: SearchSpace, folder: StudyFolder
) -> tuple[StudyRequest, SearchSpace]:
    """Return the request with its study's objectives, and the space with the first as its metric.

    Raises:
        ConfigError: they are no metric and costs, or something asked for goes by one number.
        RecordError: the study was begun with others.
    """
    begun = folder.record().objectives if folder.record_file.exists() else None
    if begun is not None and request.objectives not in ((), begun):
        raise RecordError(
            f"study {folder.path.name!r} was begun with {', '.join(begun) or 'one objective'}: "
            "leave --objectives out, or give this study another name with --study"
        )
    objectives = request.objectives or begun or ()
    request = replace(request, objectives=objectives)
    if not objectives:
        return request, space
    check_objectives(request, space, is_new=begun is None)
    metric = objectives[0]
    return request, replace(space, metric=metric, direction=Objective(metric).direction)


def check_objectives(request: StudyRequest, space: SearchSpace, *, is_new: bool) -> None:
    """Refuse objectives that can't be, and what can't go with several; raises ConfigError."""
    metric, *costs = request.objectives
    for name, known in ((metric, OBJECTIVES), *((cost, COSTS) for cost in costs)):
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(
                f"--objectives {','.join(request.objectives)}: {name!r} must be one of "
                f"{', '.join(known)}{hint}; a metric comes first, then costs"
            )
    if not costs or len(set(costs)) < len(costs):
        raise ConfigError(
            f"--objectives {','.join(request.objectives)} must be a metric and one or more costs, "
            f"as in {metric},latency; a metric alone is the space's `metric`"
        )
    sampler, scheduler = request.sampler or space.sampler, request.scheduler or space.scheduler
    for option, is_asked, cure in (
        (f"--sampler {sampler}", sampler not in (None, *FOR_SEVERAL), _one_of(FOR_SEVERAL)),
        ("--scheduler hyperband", is_new and scheduler == "hyperband", "use asha, median or none"),
        ("--goal single", request.goal == "single", "leave it out"),
        ("--stop-when-gain-below", request.stop_when_gain_below is not None, "leave it out"),
    ):
        if is_asked:
            raise ConfigError(f"{option} goes by one number, and --objectives by several: {cure}")


def _one_of(names: tuple[str, ...]) -> str:
    return f"use {', '.join(names[:-1])} or {names[-1]}"


def directions(study: StudyRecord) -> list[str]:
    """Return Optuna's direction of each of a study's objectives: a cost is minimized."""
    return [study.direction, *("minimize" for _ in study.objectives[1:])]


class NetworkTimer:
    """Says what a trial's network costs on this machine's CPU; each is timed once for a study."""

    def __init__(self, folder: StudyFolder, num_classes: int, objectives: tuple[str, ...]) -> None:
        self._folder, self._num_classes = folder, num_classes
        self._costs = objectives[1:]

    def time_before(self, space: SearchSpace) -> None:
        """Time the networks that a space is known to have, while nothing else runs."""
        configs = {str(network_of(each)): each for each in _drawn(space)} if self._costs else {}
        if len(configs) <= MOST_NETWORKS:
            self._measure(*configs.values())

    def __call__(self, config: TrialConfig) -> dict[str, float]:
        """Return {objective: value} of the study's costs; {} where it has one objective."""
        if not self._costs:
            return {}
        cost = self._measure(config).find(config)
        assert cost is not None
        return {name: float(getattr(cost, COSTS[name])) for name in self._costs}

    def _measure(self, *configs: TrialConfig) -> NetworkCosts:
        from carray.inference.measure_network import measure_networks  # torch

        return measure_networks(self._folder, configs, self._num_classes, progress=progress)


def write_front(folder: StudyFolder) -> list[Path]:
    """Write the front of a study of several objectives as `front.json`; return the files there."""
    if not folder.record().objectives:
        return []
    write_json(folder.front_file, front_rows(folder))
    return [folder.costs_file, folder.front_file]


def _drawn(space: SearchSpace) -> list[TrialConfig]:
    configs = []
    for params in space.sample(DRAWS):
        try:
            configs.append(space.resolve(params))
        except ConfigError:  # the study draws another in its place
            continue
    return configs
