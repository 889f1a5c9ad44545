"""An Optuna storage that serves reads from memory and writes to a database.

A sampler reads all trials for each parameter it draws. Out of a database that costs the driver of a
hundred trials at once some 60 ms a trial, more with every trial that runs. One process writes a
study (its lock sees to that), so what it has written needs no reading again.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage, get_storage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from carray.errors import RESUMES, RecordError, causes, first_cause
from carray.masking import masked

FIXED_PARAMS = "fixed_params"  # under which Optuna keeps a point that a trial was given
OUTAGE_SECONDS = 180.0  # for so long a server that is restarted is waited for
RETRY_SECONDS = 2.0
CHECK_SECONDS = 5  # a server that takes no connection within this is away
DRAWN_AGAIN = "drawn_again"  # marks a draw that is only repeated: nobody gave that point


ReadT = TypeVar("ReadT")
_logger = logging.getLogger(__name__)


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
        if trial_id not in self._ids:
            whole = self.get_trial(trial_id)
            study = self._studies_behind[self._study_of[trial_id]]
            self._ids[trial_id] = waited_out(lambda: self._behind.create_new_trial(study, whole))
            return
        for method, args in late:
            write = getattr(self._behind, method)
            waited_out(partial(write, self._ids[trial_id], *args))

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Make a study, here and behind."""
        study_id = int(super().create_new_study(directions, study_name))
        name = self.get_study_name_from_id(study_id)
        there = waited_out(lambda: self._behind.create_new_study(directions, name))
        self._studies_behind[study_id] = there
        return study_id

    def delete_study(self, study_id: int) -> None:
        """Delete a study, here and behind."""
        super().delete_study(study_id)
        there = self._studies_behind.pop(study_id)
        waited_out(lambda: self._behind.delete_study(there))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Keep an attribute."""
        super().set_study_user_attr(study_id, key, value)
        there = self._studies_behind[study_id]
        waited_out(lambda: self._behind.set_study_user_attr(there, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Keep what a sampler notes of the study: how far a sequence is drawn."""
        super().set_study_system_attr(study_id, key, value)
        there = self._studies_behind[study_id]
        waited_out(lambda: self._behind.set_study_system_attr(there, key, value))

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
            super().__init__(_with_driver(url), engine_kwargs=_engine_kwargs(url))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections that wait for the next call."""
        if hasattr(self, "engine"):
            self.engine.dispose()


def _with_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def _engine_kwargs(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {}
    timeout = {} if "connect_timeout" in url else {"connect_timeout": CHECK_SECONDS}
    return {"pool_pre_ping": True, "connect_args": timeout}


@contextmanager
def open_optuna_study(
    name: str, directions: Sequence[str], storage: str, sampler: optuna.samplers.BaseSampler
) -> Iterator[optuna.Study]:
    """Open the stored Optuna study `name`, or make it; its storage is a `WriteBehindStorage`.

    The connections to the storage behind it are closed in the end.

    Raises:
        RecordError: the storage can't be opened, with the cause.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with ExitStack() as opened:
        with warnings.catch_warnings(action="ignore"):
            try:
                behind = get_storage(opened.enter_context(closing(Database(storage))))
                stored = optuna.create_study(
                    study_name=name, directions=directions, storage=behind, load_if_exists=True
                )
                kept = WriteBehindStorage(behind)
                kept.read(stored)
            except Exception as error:  # Optuna's own, sqlalchemy's, a database driver's
                cause = first_cause(error, 200)
                if isinstance(error, ImportError) or "No module named" in cause:
                    raise RecordError(
                        f"Optuna's storage {storage} needs a package ({cause}): "
                        "`pip install 'carray[postgres]'` brings that of Postgres"
                    ) from error
                raise RecordError(
                    f"Optuna's storage of study {name!r} can't be opened ({cause}); "
                    "mend it, give another --storage, or begin another study with --study"
                ) from error
            study = optuna.load_study(study_name=name, storage=kept, sampler=sampler)
        yield study


def waited_out(write: Callable[[], ReadT], patience_seconds: float | None = None) -> ReadT:
    """Write; where the server is away, being restarted say, try again until it is back.

    Raises:
        RecordError: it stays away.
    """
    deadline = time.monotonic() + (OUTAGE_SECONDS if patience_seconds is None else patience_seconds)
    warned = False
    while True:
        try:
            return write()
        except (StorageInternalError, SQLAlchemyError) as error:
            cause = first_cause(error, 200)
            if time.monotonic() > deadline or not _may_come_back(error):
                raise RecordError(
                    f"Optuna's storage stopped answering ({cause}); mend it, and {RESUMES}"
                ) from error
            if not warned:
                _logger.warning("Optuna's storage doesn't answer, waiting for it: %s", cause)
            warned = True
            time.sleep(RETRY_SECONDS)


def _may_come_back(error: BaseException) -> bool:
    """Say whether a server that is away may be what went wrong; a file's error stays."""
    found = [each for each in causes(error) if isinstance(each, DBAPIError)]
    return any(
        isinstance(each, OperationalError | InterfaceError) and "sqlite" not in str(each)
        for each in found
    )


def check_database(url: str) -> None:
    """Connect to a database once.

    Raises:
        RecordError: it doesn't answer within seconds, refuses, or its driver isn't installed.
    """
    try:
        engine = create_engine(_with_driver(url), **_engine_kwargs(url))
        with engine.connect():
            engine.dispose(close=False)
    except (SQLAlchemyError, ImportError) as error:
        raise RecordError(
            f"{without_password(url)} can't be used ({first_cause(error)}): start the server, or "
            "mend CARRAY_STORAGE; Postgres needs `pip install 'carray[postgres]'`"
        ) from None


def without_password(url: str) -> str:
    """Return a storage's URL as a record keeps it; libpq finds passwords in PGPASSWORD, .pgpass."""
    try:
        return make_url(url)._replace(password=None).render_as_string(hide_password=False)
    except SQLAlchemyError:
        return masked(url)


def flush(trial: optuna.Trial) -> None:
    """Write an open trial of such a study, now that its parameters are drawn."""
    trial.storage.flush(trial._trial_id)
