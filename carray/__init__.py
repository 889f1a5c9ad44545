"""carray: distributed hyperparameter search and ensembling for fine-grained car classification.

The names below are the whole Python door; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "CarrayError": "carray.errors",
    "Ensemble": "carray.ensemble",
    "Manifest": "carray.data.manifest",
    "SearchSpace": "carray.search.space",
    "Study": "carray.api",
    "TrialConfig": "carray.config",
    "build_ensemble": "carray.ensemble",
    "load_model": "carray.ensemble.package",
    "load_study": "carray.api",
    "prepare": "carray.data.prepare",
    "render_toycars": "carray.data.toycars",
    "replay": "carray.training.replay",
    "sanity": "carray.training.sanity",
    "train": "carray.training.single",
    "train_trial": "carray.training.single",
    "tune": "carray.api",
}
__all__ = [
    "CarrayError",
    "Ensemble",
    "Manifest",
    "SearchSpace",
    "Study",
    "TrialConfig",
    "build_ensemble",
    "load_model",
    "load_study",
    "prepare",
    "render_toycars",
    "replay",
    "sanity",
    "train",
    "train_trial",
    "tune",
]

if TYPE_CHECKING:
    from carray.api import Study, load_study, tune
    from carray.config import TrialConfig
    from carray.data.manifest import Manifest
    from carray.data.prepare import prepare
    from carray.data.toycars import render_toycars
    from carray.ensemble import Ensemble, build_ensemble
    from carray.ensemble.package import load_model
    from carray.errors import CarrayError
    from carray.search.space import SearchSpace
    from carray.training.replay import replay
    from carray.training.sanity import sanity
    from carray.training.single import train, train_trial


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'carray' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
