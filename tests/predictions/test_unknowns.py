"""Scores that tell the unknown: what a threshold promises, and what AUROC says."""

from __future__ import annotations

import numpy as np
import pytest

from carray.predictions.logits import energy_of
from carray.predictions.unknowns import alarm_threshold, separation


def test_a_threshold_keeps_its_false_alarms() -> None:
    rng = np.random.default_rng(0)
    limit = alarm_threshold(rng.normal(size=500), 0.05)
    assert (rng.normal(size=20_000) > limit).mean() == pytest.approx(0.05, abs=0.02)
    assert alarm_threshold(rng.normal(size=10), 0.05) == float("inf")


def test_auroc_by_hand() -> None:
    found = separation([0.0, 1.0, 2.0], [1.0, 3.0], limit=2.5)
    assert found.auroc.value == pytest.approx((1.5 + 3) / 6)
    assert found.auroc.low <= found.auroc.value <= found.auroc.high
    assert (found.caught, found.false_alarms) == (0.5, 0.0)
    assert (found.known, found.unknown) == (3, 2)


def test_energy_is_low_where_a_logit_is_high() -> None:
    logits = np.array([[0.0, 0.0], [9.0, 0.0], [1000.0, 999.0]])
    energies = energy_of(logits)
    assert energies[0] == pytest.approx(-np.log(2))
    assert energies[0] > energies[1] > energies[2]
    assert np.isfinite(energies).all()
