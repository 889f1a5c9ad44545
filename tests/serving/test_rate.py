"""What one client may ask, and how far answers have drifted from training."""

from __future__ import annotations

import re

import pytest

from carray.serving import rate
from carray.serving.gauges import LEAST_RECENT, Gauges
from carray.serving.limits import Refused
from carray.serving.rate import Rate


def test_a_client_waits_its_turn_and_others_do_not() -> None:
    now = [0.0]
    taken = Rate(6, clock=lambda: now[0])
    for _ in range(6):
        taken.take("one")
    with pytest.raises(Refused, match="more than 6 requests in a minute") as refused:
        taken.take("one")
    assert (refused.value.status, refused.value.retry_after) == (429, 10)
    taken.take("other")
    now[0] = 10.0
    taken.take("one")
    with pytest.raises(Refused):
        taken.take("one")


def test_no_rate_refuses_nobody_and_old_clients_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate, "MOST_CLIENTS", 2)
    for _ in range(100):
        Rate(0).take("one")
    taken = Rate(1, clock=lambda: 0.0)
    for client in ("a", "b", "c", "a"):
        taken.take(client)
    with pytest.raises(Refused):
        taken.take("c")


def drift_of(gauges: Gauges) -> list[float]:
    gauges.drifts("m", ("a", "b", "c"), (10, 10, 20))
    found = re.findall(r'^carray_class_drift\{model="m"\} (\S+)', gauges.text().decode(), re.M)
    return [float(value) for value in found]


def test_drift_is_the_share_of_answers_that_would_have_to_be_others() -> None:
    gauges = Gauges()
    for name in ("a", "b", "c", "c") * (LEAST_RECENT // 4 - 1):
        gauges.answered("m", name, False)
    assert drift_of(gauges) == []  # too few
    for name in ("a", "b", "c", "c"):
        gauges.answered("m", name, False)
    assert drift_of(gauges) == [0.0]
    for _ in range(LEAST_RECENT):
        gauges.answered("m", "a", False)
    assert drift_of(gauges) == [pytest.approx(0.375)]
    for _ in range(2000):
        gauges.answered("m", "a", False)
    assert drift_of(gauges) == [0.75]
