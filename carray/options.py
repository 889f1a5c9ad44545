"""The keyword arguments that `carray.tune` and `Study.ensemble` pass on, with their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from carray.typing import Progress


class TuneOptions(TypedDict, total=False):
    """The rest of `carray.search.request.StudyRequest`, which says what each is for."""

    max_epochs: int | None
    concurrent: int | None
    min_lanes: int | None
    workers_per_trial: int
    accelerator: str | None
    gpus_per_trial: float | str | None
    cpus_per_worker: float | None
    objectives: tuple[str, ...]
    sampler: str | None
    goal: Literal["ensemble", "single"]
    stop_when_gain_below: float | None
    scheduler: str | None
    grace_epochs: int | None
    reduction_factor: int
    time_budget_seconds: float | None
    budget: str | None
    price: str | None
    command: str
    called_at: float | None
    refit: int
    refit_epochs: int | None
    folds: int
    top_folds: int
    fold: tuple[int, ...]
    address: str | None
    seed: int
    overrides: Mapping[str, Any]
    disk_budget_gib: float
    storage: str | None
    start_from: tuple[str, ...]
    env: tuple[str, ...]
    place_timeout_seconds: float
    preflight: bool


class EnsembleOptions(TypedDict, total=False):
    """The rest of `carray.build_ensemble`, which says what each is for."""

    folds: bool
    name: str | None
    metric: str | None
    rule: str | None
    logits_only: bool
    open_test: bool
    from_tracking: bool
    track: bool
    tta: str | Sequence[str] | None
    keep_best: bool | None
    max_latency: str | None
    max_size: str | None
    on: str
    seed: int
    progress: Progress
