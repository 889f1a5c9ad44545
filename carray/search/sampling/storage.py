"""An Optuna storage that serves reads from memory and writes to a database.

A sampler reads all trials for each parameter it draws. Out of a database that costs the driver of a
hundred trials at once some 60 ms a trial, more with every trial that runs. One process writes a
study (its lock sees to that), so what it has written needs no reading again.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage, get_storage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from carray.errors import RESUMES, RecordError, first_cause

FIXED_PARAMS = "fixed_params"  # under which Optuna keeps a point that a trial was given
DRAWN_AGAIN = "drawn_again"  # marks a draw that is only repeated: nobody gave that point


class WriteBehindStorage(InMemoryStorage):  # type: ignore[misc]
    """Answers from memory, and writes what it is told to the storage `behind` it.

    A trial is written when it is kept (`flush`, once its parameters are drawn) and when it ends, as
    a whole; a process killed before has drawn nothing that anyone knows of.
    """

    def __init__(self, behind: BaseStorage) -> None:
        super().__init__()
        self._behind = behind
        self._studies_behind: dict[int, int] = {}  # ids of studies: here -> behind
        self._study_of: dict[int, int] = {}  # here: id of a trial -> id of its study
        self._ids: dict[int, int] = {}  # of trials: here -> behind
        self._late: dict[int, list[tuple[str, tuple[Any, ...]]]] = defaultdict(list)

    def read(self, study: optuna.Study) -> None:
        """Read a study that the storage behind has."""
        there = study._study_id
        here = super().create_new_study(study.directions, study.study_name)
        self._studies_behind[here] = there
        for key, value in self._behind.get_study_user_attrs(there).items():
            super().set_study_user_attr(here, key, value)
        for key, value in self._behind.get_study_system_attrs(there).items():
            super().set_study_system_attr(here, key, value)
        for trial in self._behind.get_all_trials(there, deepcopy=False):
            trial_id = super().create_new_trial(here, trial)
            self._ids[trial_id], self._study_of[trial_id] = trial._trial_id, here

    def flush(self, trial_id: int) -> None:
        """Write what is known of a trial and not written yet."""
        late = self._late.pop(trial_id, [])
        with _translate_storage_errors():
            if trial_id not in self._ids:
                whole = self.get_trial(trial_id)
                study = self._studies_behind[self._study_of[trial_id]]
                self._ids[trial_id] = self._behind.create_new_trial(study, whole)
                return
            for method, args in late:
                getattr(self._behind, method)(self._ids[trial_id], *args)

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Make a study, here and behind."""
        study_id = int(super().create_new_study(directions, study_name))
        with _translate_storage_errors():
            self._studies_behind[study_id] = self._behind.create_new_study(
                directions, self.get_study_name_from_id(study_id)
            )
        return study_id

    def delete_study(self, study_id: int) -> None:
        """Delete a study, here and behind."""
        super().delete_study(study_id)
        with _translate_storage_errors():
            self._behind.delete_study(self._studies_behind.pop(study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Keep an attribute."""
        super().set_study_user_attr(study_id, key, value)
        with _translate_storage_errors():
            self._behind.set_study_user_attr(self._studies_behind[study_id], key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Keep what a sampler notes of the study: how far a sequence is drawn."""
        super().set_study_system_attr(study_id, key, value)
        with _translate_storage_errors():
            self._behind.set_study_system_attr(self._studies_behind[study_id], key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Open a trial; one that waits to be drawn is kept at once."""
        trial_id = int(super().create_new_trial(study_id, template_trial))
        self._study_of[trial_id] = study_id
        if template_trial is not None:
            self.flush(trial_id)
        return trial_id

    def set_trial_param(
        self, trial_id: int, name: str, value: float, distribution: BaseDistribution
    ) -> None:
        """Note a drawn parameter, in the storage's own representation."""
        super().set_trial_param(trial_id, name, value, distribution)
        self._defer(trial_id, "set_trial_param", name, value, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change a trial's state; return whether it changed. The end of a trial is kept at once."""
        if not super().set_trial_state_values(trial_id, state, values):
            return False
        self._defer(trial_id, "set_trial_state_values", state, values)
        if state.is_finished():
            self.flush(trial_id)
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, value: float) -> None:
        """Note a value of a trial that runs."""
        super().set_trial_intermediate_value(trial_id, step, value)
        self._defer(trial_id, "set_trial_intermediate_value", step, value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note an attribute."""
        super().set_trial_user_attr(trial_id, key, value)
        self._defer(trial_id, "set_trial_user_attr", key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note an attribute of Optuna's own."""
        super().set_trial_system_attr(trial_id, key, value)
        self._defer(trial_id, "set_trial_system_attr", key, value)

    def _defer(self, trial_id: int, method: str, *args: Any) -> None:
        self._late[trial_id].append((method, args))


class Database(RDBStorage):  # type: ignore[misc]
    """Optuna's storage in a database, which can be closed, and is where it can't be opened."""

    def __init__(self, url: str) -> None:
        try:
            super().__init__(url)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections that wait for the next call."""
        if hasattr(self, "engine"):
            self.engine.dispose()


@contextmanager
def open_optuna_study(
    name: str, direction: str, storage: str, sampler: optuna.samplers.BaseSampler
) -> Iterator[optuna.Study]:
    """Open the stored Optuna study `name`, or make it; its storage is a `WriteBehindStorage`.

    The connections to the storage behind it are closed in the end.

    Raises:
        RecordError: the storage can't be opened, with the cause.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with ExitStack() as opened:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                behind = get_storage(opened.enter_context(closing(Database(storage))))
                stored = optuna.create_study(
                    study_name=name, direction=direction, storage=behind, load_if_exists=True
                )
                kept = WriteBehindStorage(behind)
                kept.read(stored)
            except Exception as error:  # Optuna's own, sqlalchemy's, a database driver's
                cause = first_cause(error, 200)
                raise RecordError(
                    f"Optuna's storage of study {name!r} can't be opened ({cause}); "
                    "mend it, give another --storage, or begin another study with --study"
                ) from error
            study = optuna.load_study(study_name=name, storage=kept, sampler=sampler)
        yield study


@contextmanager
def _translate_storage_errors() -> Iterator[None]:
    """Say in one sentence that a storage has stopped answering: its server is gone, say."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = first_cause(error, 200)
        raise RecordError(
            f"Optuna's storage stopped answering ({cause}); mend it, and {RESUMES}"
        ) from error


def flush(trial: optuna.Trial) -> None:
    """Write an open trial of such a study, now that its parameters are drawn."""
    trial.storage.flush(trial._trial_id)
