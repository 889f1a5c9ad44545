"""carray: distributed hyperparameter search and ensembling for fine-grained car classification.

These names are the public Python API; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "CarrayError": "carray.errors",
    "Ensemble": "carray.ensemble",
    "Manifest": "carray.data.manifest",
    "SearchSpace": "carray.search.space.space",
    "Study": "carray.api",
    "TrialConfig": "carray.config",
    "add_class": "carray.incremental.add_class",
    "assemble_folds": "carray.analysis.cross_validation",
    "build_ensemble": "carray.ensemble",
    "compare_sides": "carray.analysis.compare_pair",
    "compare_trials": "carray.analysis.compare_trials",
    "draw_confusion": "carray.reports.confusion",
    "evaluate": "carray.analysis.evaluation",
    "explain": "carray.analysis.explain",
    "export_features": "carray.inference.features",
    "load_model": "carray.inference.predictor",
    "load_space": "carray.search.space.loading",
    "load_study": "carray.api",
    "make_soup": "carray.ensemble.soup",
    "predict_to_csv": "carray.inference.predict",
    "prepare": "carray.data.preparation.prepare",
    "render_toycars": "carray.data.synthetic",
    "reproduce": "carray.training.reproduce",
    "run_ablation": "carray.analysis.ablation",
    "sample_sheet": "carray.reports.pictures.sample_sheet",
    "sanity": "carray.training.overfit_check",
    "train": "carray.training.train",
    "train_feature_classifier": "carray.training.features.classifiers",
    "train_folds": "carray.training.cross_validation",
    "train_seeds": "carray.training.cross_validation",
    "train_trial": "carray.training.train",
    "tune": "carray.api",
    "write_label_issues": "carray.analysis.label_errors",
    "write_misclassified": "carray.reports.misclassified",
}
_RENAMED = {  # names of 0.1, for one release
    "climb": "run_ablation",
    "replay": "reproduce",
    "show_mistakes": "write_misclassified",
    "train_classical": "train_feature_classifier",
    "write_doubtful": "write_label_issues",
}
__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from carray.analysis.ablation import run_ablation as run_ablation
    from carray.analysis.compare_pair import compare_sides as compare_sides
    from carray.analysis.compare_trials import compare_trials as compare_trials
    from carray.analysis.cross_validation import assemble_folds as assemble_folds
    from carray.analysis.evaluation import evaluate as evaluate
    from carray.analysis.explain import explain as explain
    from carray.analysis.label_errors import write_label_issues as write_label_issues
    from carray.api import Study as Study
    from carray.api import load_study as load_study
    from carray.api import tune as tune
    from carray.config import TrialConfig as TrialConfig
    from carray.data.manifest import Manifest as Manifest
    from carray.data.preparation.prepare import prepare as prepare
    from carray.data.synthetic import render_toycars as render_toycars
    from carray.ensemble import Ensemble as Ensemble
    from carray.ensemble import build_ensemble as build_ensemble
    from carray.ensemble.soup import make_soup as make_soup
    from carray.errors import CarrayError as CarrayError
    from carray.incremental.add_class import add_class as add_class
    from carray.inference.features import export_features as export_features
    from carray.inference.predict import predict_to_csv as predict_to_csv
    from carray.inference.predictor import load_model as load_model
    from carray.reports.confusion import draw_confusion as draw_confusion
    from carray.reports.misclassified import write_misclassified as write_misclassified
    from carray.reports.pictures.sample_sheet import sample_sheet as sample_sheet
    from carray.search.space.loading import load_space as load_space
    from carray.search.space.space import SearchSpace as SearchSpace
    from carray.training.cross_validation import train_folds as train_folds
    from carray.training.cross_validation import train_seeds as train_seeds
    from carray.training.features.classifiers import (
        train_feature_classifier as train_feature_classifier,
    )
    from carray.training.overfit_check import sanity as sanity
    from carray.training.reproduce import reproduce as reproduce
    from carray.training.train import train as train
    from carray.training.train import train_trial as train_trial


def __getattr__(name: str) -> Any:
    current = _RENAMED.get(name, name)
    if current not in _HOMES:
        raise AttributeError(f"module 'carray' has no attribute {name!r}")
    found = getattr(import_module(_HOMES[current]), current)
    if name == "SearchSpace":  # `SearchSpace.load` of 0.1, for one release
        found.load = staticmethod(__getattr__("load_space"))
    return found


def __dir__() -> list[str]:
    return __all__
