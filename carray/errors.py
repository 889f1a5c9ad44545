"""Every error that carray raises on purpose.

    CarrayError             what a user can cause and mend; the command line prints it, exit code 2
    ├── ConfigError         a value, a name or a search space that breaks a rule
    ├── DataError           a data set that is missing, broken or too small
    │   ├── DataErrors      several of these, said at once
    │   └── UnsuitableData  a data set that can't serve a configuration, on any machine
    ├── WeightsError        pretrained weights that can't be had or don't fit
    ├── RecordError         a study, trial, record or model package that can't be read
    ├── ExportError         an export that doesn't answer as the model does
    ├── PlanError           a plan that the cluster can't place
    ├── ClusterError        the cluster lost what a study runs on; exit code 3
    ├── StorageError        a URL that can't be read or written
    │   ├── ServerFault     a URL whose server fails, as HTTP's 500 says; exit code 3
    │   └── UploadError     results that aren't at their URL yet; exit code 3
    ├── DiskError           a disk that is full, over its quota or read-only
    ├── TrackingError       a tracking server that doesn't answer
    └── TrialError          a trial that ended without a result; the study goes on
        ├── TrialFailed     a non-finite loss, a crash: the trial's state is `failed`
        └── TrialInfeasible out of memory: the trial's state is `infeasible`

Messages give the value, the rule and the cure, in one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from sys import getfilesystemencoding

from pydantic import ValidationError

from carray.masking import masked

EXIT_USAGE = 2  # exit code of everything a user can mend
EXIT_GOES_ON = 3  # a cluster or a URL left it undone, not the user: the same command goes on
EXIT_INTERRUPTED = 130
UNION_BRANCHES = ("bool", "float", "int", "str")  # where pydantic looked last, no field's name
RESUMES = "the same command goes on from here"  # said where what had finished is kept and used


class CarrayError(Exception):
    """Base of all errors raised on purpose; what it says holds no secret."""

    def __str__(self) -> str:
        return masked(super().__str__())


class ConfigError(CarrayError):
    """A configuration value, name or search space breaks a rule."""


class DataError(CarrayError):
    """A data set is missing, broken or too small for what was asked."""


class DataErrors(DataError):
    """Several things are wrong with what a person gave; each stands on a line."""

    def __init__(self, errors: Iterable[CarrayError]) -> None:
        self.errors = tuple(errors)
        listed = "".join(f"\n- {error}" for error in self.errors)
        super().__init__(f"{len(self.errors)} things are wrong:{listed}")


class UnsuitableData(DataError):
    """A data set can't serve what a configuration asks for, on whatever machine."""


class WeightsError(CarrayError):
    """Pretrained weights can't be had, or don't fit the backbone."""


class RecordError(CarrayError):
    """A study, trial, record or model package can't be read."""


class ExportError(CarrayError):
    """An exported model doesn't answer as the original does."""


class PlanError(CarrayError):
    """The cluster can't place what the study asks for."""


class ClusterError(CarrayError):
    """The cluster has lost what a study runs on; what had finished is kept and used again."""


class StorageError(CarrayError):
    """What lies at a URL can't be read or written."""


class ServerFault(StorageError):
    """The server of a URL has failed, by its own word; no setting mends that, and time may."""


class UploadError(StorageError):
    """Results are on this machine and not at their URL; the same command carries them there."""


class DiskError(CarrayError):
    """A disk is full, over its quota or read-only: what runs is left to be gone on with."""


class TrackingError(CarrayError):
    """The tracking server doesn't answer or refuses."""


class TrialError(CarrayError):
    """A trial ended without a usable result; the study goes on."""


class TrialFailed(TrialError):
    """A trial broke: its state is `failed`."""


class TrialInfeasible(TrialError):
    """A trial asked for more memory than there is: its state is `infeasible`."""


class Complaints:
    """What is wrong with what a person gave, all of it at once."""

    def __init__(self) -> None:
        self._heard: list[CarrayError] = []

    def __bool__(self) -> bool:
        return bool(self._heard)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Keep a `DataError` or `ConfigError` for later."""
        try:
            yield
        except (DataError, ConfigError) as error:
            self._heard += error.errors if isinstance(error, DataErrors) else [error]

    @property
    def errors(self) -> tuple[CarrayError, ...]:
        """What was kept, in the order in which it was heard."""
        return tuple(self._heard)

    def add(self, errors: Iterable[CarrayError]) -> None:
        """Keep what others heard."""
        self._heard += errors

    def refuse(self) -> None:
        """Raise what was kept, if anything was.

        Raises:
            DataErrors: several; each of them on a line.
            CarrayError: the only one, as it was.
        """
        if len(self._heard) == 1:
            raise self._heard[0]
        if self._heard:
            raise DataErrors(self._heard)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, then what it came from, up to the first.

    An error of carray's that was being handled meanwhile is no cause.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        meanwhile = error.__context__
        error = error.__cause__ or (None if isinstance(meanwhile, CarrayError) else meanwhile)


def first_cause(error: BaseException, most: int = 120) -> str:
    """Say the first error of a chain: what libraries wrap it in is long and says less."""
    *_, first = causes(error)
    return " ".join(str(first).split())[:most] or type(first).__name__


def did_you_mean(word: str, known: Iterable[str], most: int = 1) -> str:
    """Return "; did you mean 'x'?", or "'x' or 'y'?", for the known words nearest to `word`.

    It is "" if none is near.
    """
    return _meant(get_close_matches(word, list(known), n=most))


def did_you_mean_path(path: str, known: Sequence[str]) -> str:
    """Return the same for a dotted name: the nearest one, and one that it begins or ends."""
    whole = [each for each in known if f".{path}." in f".{each}."]
    return _meant(list(dict.fromkeys([*get_close_matches(path, known, n=1), *whole]))[:2])


def _meant(words: Sequence[str]) -> str:
    near = [repr(each) for each in words]
    listed = ", ".join(near[:-1]) + " or " * (len(near) > 1) + "".join(near[-1:])
    return f"; did you mean {listed}?" if near else ""


def some_of(names: Sequence[str], most: int = 3) -> str:
    """Name the first of many, and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def unreadable_in_locale(name: str) -> str:
    """Say that the shell's locale is to blame for a file name, and the cure."""
    return (
        f"this shell's locale ({getfilesystemencoding()}) can't read the file name {name!r}, "
        "which is UTF-8: set PYTHONUTF8=1, or LC_ALL=C.UTF-8"
    )


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return `1 lane`, `2 lanes`, `1,000 classes`: nothing is said of `1 lanes`.

    `plural` is for what no `s` makes one of: `studies`, or with its verb, `images were`.
    """
    plural = plural or (f"{noun}es" if noun.endswith("ss") else f"{noun}s")
    return f"{count:,} {noun if count == 1 else plural}"


def as_yaml(value: object, *, quoted: bool = True) -> str:
    """Return a value as YAML has it: `true`, `null`, `[1, 2]`, `'a text'`."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {as_yaml(each)}' for key, each in value.items())}}}"
    return value if isinstance(value, str) and not quoted else repr(value)


def describe(error: ValidationError) -> str:
    """Say a pydantic error in one sentence: every bad name, its value and the rules it breaks."""
    problems: dict[str, list[str]] = {}
    for problem in error.errors():
        steps = [str(step) for step in problem["loc"]]
        path = ".".join(steps[:-1] if steps[-1:] and steps[-1] in UNION_BRANCHES else steps)
        message = problem["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        is_there = problem["type"] != "missing"  # else the input is all that is
        given = f"={as_yaml(problem['input'])}" if is_there else ""
        problems.setdefault(f"{path}{given}: " if path else "", []).append(message)
    return "; ".join(f"{what}{_either(rules)}" for what, rules in problems.items())


def _either(rules: Sequence[str]) -> str:
    """Join what each of the kinds that a value may have asks for."""
    start = "input should be "
    first, *others = dict.fromkeys(rules)
    return " or ".join([first, *(each.removeprefix(start) for each in others)])
