"""Choosing and weighting the members of an ensemble from the trials' stored logits."""

from __future__ import annotations

from carray.ensemble.build import build_ensemble, default_package
from carray.ensemble.result import Ensemble

__all__ = ["Ensemble", "build_ensemble", "default_package"]
