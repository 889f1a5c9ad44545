"""Optuna's own contracts, kept by our storage and the samplers that we build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import FrozenTrial

from carray.search.sampling.samplers import FOR_SEVERAL, build_sampler
from carray.search.sampling.storage import Database, WriteBehindStorage
from tests.search.stores import make_optuna_file

pytestmark = pytest.mark.filterwarnings("ignore")


class TestWriteBehindStorage(StorageTestCase):
    """As every storage of Optuna's; and the storage behind has all that has ended."""

    @pytest.fixture
    def storage(self) -> Iterator[WriteBehindStorage]:
        behind = InMemoryStorage()
        kept = WriteBehindStorage(behind)
        yield kept
        there = {study.study_name: study for study in behind.get_all_studies()}
        assert there.keys() == {study.study_name for study in kept.get_all_studies()}
        for study in kept.get_all_studies():
            twin = there[study.study_name]
            assert twin.directions == study.directions
            assert repr(twin.user_attrs) == repr(study.user_attrs)  # NaN is among them
            assert repr(twin.system_attrs) == repr(study.system_attrs)
            assert ended(behind, twin._study_id) == ended(kept, study._study_id)


def ended(storage: BaseStorage, study_id: int) -> list[str]:
    """Say what a storage holds of the trials that have ended, whichever came first."""
    return sorted(values_of(t) for t in storage.get_all_trials(study_id) if t.state.is_finished())


def values_of(trial: FrozenTrial) -> str:
    """Say what a trial holds, whatever storage it is in."""
    held = (trial.params, trial.user_attrs, trial.system_attrs, trial.intermediate_values)
    sorted_ = [sorted(values.items(), key=lambda pair: str(pair[0])) for values in held]
    return repr((trial.state.name, trial.values, *sorted_))


def test_a_study_that_is_read_again_is_as_it_was_kept(tmp_path: Path) -> None:
    behind = Database(make_optuna_file(tmp_path / "optuna.db"))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name="s", storage=WriteBehindStorage(behind))
    study.set_user_attr("who", "a test")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    again = WriteBehindStorage(behind)
    again.read(optuna.load_study(study_name="s", storage=behind))
    read = optuna.load_study(study_name="s", storage=again)
    assert read.user_attrs == {"who": "a test"}
    assert [values_of(t) for t in read.trials] == [values_of(t) for t in study.trials]
    behind.close()


class TestBuiltSamplers(BasicSamplerTestCase):
    """As every sampler of Optuna's."""

    @pytest.fixture(params=["tpe", "tpe-univariate"])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return partial(build_sampler, request.param, 0)


class TestSamplersOfSeveralObjectives(MultiObjectiveSamplerTestCase):
    """As every sampler of Optuna's that takes several objectives."""

    @pytest.fixture(params=FOR_SEVERAL)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return partial(build_sampler, request.param, 0)
