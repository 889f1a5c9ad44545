"""The four distributions that a search space draws from, and how each asks Optuna."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from carray.errors import ConfigError, as_yaml, did_you_mean

if TYPE_CHECKING:
    import optuna

Scalar = bool | int | float | str | None
KINDS = ("uniform", "loguniform", "int", "choice")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    kind: Literal["uniform", "loguniform", "int"]
    low: float
    high: float

    def suggest(self, trial: optuna.Trial, name: str) -> float | int:
        """Draw a value through Optuna."""
        if self.kind == "int":
            return int(trial.suggest_int(name, int(self.low), int(self.high)))
        return float(trial.suggest_float(name, self.low, self.high, log=self.kind == "loguniform"))

    def for_optuna(self) -> Any:
        """Return Optuna's own distribution."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high))
        return FloatDistribution(self.low, self.high, log=self.kind == "loguniform")

    def probes(self) -> tuple[Scalar, ...]:
        """Return both ends, then a value between them that is neither round nor a multiple."""
        low, high = self.ends()
        inner = low + 1 if self.kind == "int" else low + (high - low) / math.e
        return (low, high, inner)

    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest value."""
        return (int(self.low), int(self.high)) if self.kind == "int" else (self.low, self.high)

    def admit(self, value: Scalar) -> Scalar:
        """Return `value` as this range draws it.

        Raises:
            ConfigError: the value lies outside, or is no number.
        """
        if not is_number(value):
            raise ConfigError(f"{as_yaml(value)} is no number, as {self} needs")
        if not self.low <= value <= self.high:
            raise ConfigError(f"{as_yaml(value)} lies outside {self}")
        if self.kind != "int":
            return float(value)
        if value != int(value):
            raise ConfigError(f"{as_yaml(value)} is no whole number, as {self} needs")
        return int(value)

    def raw(self) -> dict[str, list[Scalar]]:
        """Return the YAML form."""
        return {self.kind: list(self.ends())}

    def __str__(self) -> str:
        return f"{self.kind} [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Choice:
    """One of the values listed; their order means nothing."""

    values: tuple[Scalar, ...]

    def suggest(self, trial: optuna.Trial, name: str) -> Scalar:
        """Draw a value through Optuna."""
        value: Scalar = trial.suggest_categorical(name, self.values)
        return value

    def for_optuna(self) -> Any:
        """Return Optuna's own distribution."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def probes(self) -> tuple[Scalar, ...]:
        """Return every value."""
        return self.values

    def ends(self) -> tuple[Scalar, ...]:
        """Return every value."""
        return self.values

    def admit(self, value: Scalar) -> Scalar:
        """Return the listed value that equals `value`; raises ConfigError if there is none."""
        for listed in self.values:
            if _same(listed, value):
                return listed
        raise ConfigError(f"{as_yaml(value)} is not in {self}")

    def raw(self) -> dict[str, list[Scalar]]:
        """Return the YAML form."""
        return {"choice": list(self.values)}

    def __str__(self) -> str:
        return f"choice [{', '.join(as_yaml(one, quoted=False) for one in self.values)}]"


Distribution = Range | Choice


def is_number(value: object) -> TypeGuard[int | float]:
    """Say whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(one: object, other: object) -> bool:
    """Say whether two values are equal, where true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def parse_distribution(raw: object) -> Distribution:
    """Read `{KIND: [..]}`.

    Raises:
        ConfigError: it is none of the four, its range is reversed, or it lists nothing.
    """
    if not isinstance(raw, Mapping) or len(raw) != 1:
        raise ConfigError(
            f"{as_yaml(raw)} is no distribution; write for example {{uniform: [0.0, 0.3]}}"
        )
    kind, values = next(iter(raw.items()))
    if kind not in KINDS:
        raise ConfigError(
            f"unknown distribution {kind!r}{did_you_mean(str(kind), KINDS)} "
            f"(there are {', '.join(KINDS)})"
        )
    if not isinstance(values, list):
        raise ConfigError(f"{kind}: {as_yaml(values)} must be a list in square brackets")
    return _choice(values) if kind == "choice" else _range(kind, values)


def _range(kind: Literal["uniform", "loguniform", "int"], values: list[object]) -> Range:
    numbers = [v for v in values if is_number(v)]
    if len(values) != 2 or len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{kind}: {as_yaml(values)} must be two numbers, [low, high]")
    low, high = numbers
    if not low < high:
        raise ConfigError(f"{kind}: [{low:g}, {high:g}] is reversed or empty; low < high must hold")
    if kind == "loguniform" and low <= 0:
        raise ConfigError(
            f"{kind}: [{low:g}, {high:g}] must start above 0; a log has no value there"
        )
    if kind == "int" and not all(isinstance(number, int) for number in numbers):
        raise ConfigError(f"int: [{low:g}, {high:g}] must be two whole numbers")
    return Range(kind, low, high)


def _choice(values: list[object]) -> Choice:
    if not values:
        raise ConfigError("choice: [] lists nothing to choose from")
    listed: list[Scalar] = []
    for value in values:
        if value is not None and not isinstance(value, bool | int | float | str):
            raise ConfigError(
                f"choice: {as_yaml(value)} must be a number, a text, true, false or null"
            )
        if any(_same(value, known) for known in listed):
            raise ConfigError(f"choice: {as_yaml(value)} is listed twice")
        listed.append(value)
    return Choice(tuple(listed))
