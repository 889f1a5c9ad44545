"""The YAML file of a search space: its keys, and every mistake in them with its line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from carray.config import check_parameter
from carray.errors import ConfigError, as_yaml, did_you_mean
from carray.metrics import DEFAULT_OBJECTIVE, OBJECTIVES
from carray.search.space.distributions import Distribution, Scalar, parse_distribution
from carray.search.space.space import Block, SearchSpace
from carray.search.space.validation import wrong_values, wrong_whole
from carray.yaml_loader import Document, parse
from carray.yaml_loader import Path as Keys

VERSION = 1
KEYS = (
    "version",
    "metric",
    "direction",
    "fixed",
    "search",
    "backbones",
    "start",
    "refit",
    "sampler",
    "scheduler",
    "grace_epochs",
    "trials",
    "recipe",
)
BLOCK_KEYS = ("fixed", "search")
SAMPLERS = ("tpe", "tpe-univariate", "tpe-local", "random", "gp", "cmaes", "qmc", "nsga2")
RECIPES = ("known", "none")
SCHEDULERS = ("asha", "hyperband", "median", "none")
NOT_FOR_REFITS = {
    "epochs": "--refit-epochs says how long refits are",
    "seed": "a refit has a trial's or a further one",
    "fold": "--folds trains the best on folds",
    "backbone": "a refit is of a trial's own",
}
MAX_ERRORS_SHOWN = 20  # mistakes that one message names


@dataclass
class FileErrors:
    """What is wrong in one file, in the order of its lines."""

    name: str
    document: Document
    found: list[tuple[Keys, str]] = field(default_factory=list)

    def add(self, keys: Keys, sentence: str) -> None:
        """Note one mistake at `keys`."""
        self.found.append((keys, sentence))

    def refuse(self) -> None:
        """Raise ConfigError if anything was noted."""
        if not self.found:
            return
        mistakes = sorted({(self.document.line_of(keys) or 0, says) for keys, says in self.found})
        lines = [f"line {line}: {says}" if line else says for line, says in mistakes]
        if len(lines) == 1:
            raise ConfigError(f"{self.name}, {lines[0]}")
        more = (
            [f"and {len(lines) - MAX_ERRORS_SHOWN} more"] if len(lines) > MAX_ERRORS_SHOWN else []
        )
        shown = "\n  ".join(lines[:MAX_ERRORS_SHOWN] + more)
        raise ConfigError(f"{self.name} has {len(lines)} mistakes:\n  {shown}")


def parse_space(text: str, name: str) -> SearchSpace:
    """Return the space that YAML text describes, checked whole; `name` is how errors call it.

    Raises:
        ConfigError: it has mistakes; the first `MAX_ERRORS_SHOWN` are named with their lines.
    """
    document = parse(text, name)
    if not isinstance(document.value, Mapping):
        raise ConfigError(f"{name} must be a mapping with the keys {', '.join(KEYS)}")
    mistakes = FileErrors(name, document)
    for keys, _ in document.repeated:
        mistakes.add(keys, f"{keys[-1]!r} is given twice")
    fields = _read_fields(document.value, mistakes)
    fields |= {"name": name, "text": text, "question": _first_comment(text)}
    space = SearchSpace(**fields)
    for keys, sentence in wrong_values(space) or ([] if mistakes.found else wrong_whole(space)):
        mistakes.add(keys, sentence)
    mistakes.refuse()
    return space


def _read_fields(raw: Mapping[Any, Any], mistakes: FileErrors) -> dict[str, Any]:
    _check_keys(raw, KEYS, (), mistakes)
    if raw.get("version") != VERSION:
        mistakes.add(("version",), f"version: {as_yaml(raw.get('version'))} must be {VERSION}")
    shared = _read_block({key: raw.get(key) for key in BLOCK_KEYS}, (), mistakes)
    blocks = {
        str(alias): _read_backbone(alias, block, shared, mistakes)
        for alias, block in _mapping(raw.get("backbones"), ("backbones",), mistakes).items()
    }
    _check_shared_only(shared, blocks, mistakes)
    return {
        **_read_objective(raw, mistakes),
        "names_metric": raw.get("metric") is not None,
        "shared": shared,
        "blocks": blocks,
        "starts": _read_starts(raw.get("start"), mistakes),
        "refit": _read_refit(raw.get("refit"), mistakes),
        "sampler": _one_of(raw, "sampler", SAMPLERS, mistakes),
        "scheduler": _one_of(raw, "scheduler", SCHEDULERS, mistakes),
        "grace_epochs": _read_count(raw, "grace_epochs", mistakes),
        "trials": _read_count(raw, "trials", mistakes),
        "recipe": _one_of(raw, "recipe", RECIPES, mistakes) != "none",
    }


def _check_keys(raw: Mapping[Any, Any], known: Iterable[str], at: Keys, to: FileErrors) -> None:
    for key in raw:
        if key not in known:
            to.add((*at, str(key)), f"unknown key {key!r}{did_you_mean(str(key), known)}")


def _mapping(raw: object, at: Keys, to: FileErrors) -> Mapping[Any, Any]:
    if raw is None:
        return {}
    if isinstance(raw, Mapping):
        return raw
    to.add(at, f"{'.'.join(at)}: {as_yaml(raw)} must be a mapping of names")
    return {}


def _one_of(raw: Mapping[Any, Any], key: str, known: tuple[str, ...], to: FileErrors) -> str | None:
    value = raw.get(key)
    if value is None or value in known:
        return value
    hint = did_you_mean(str(value), known)
    to.add((key,), f"{key}: {as_yaml(value)} is not one of {', '.join(known)}{hint}")
    return None


def _read_objective(raw: Mapping[Any, Any], to: FileErrors) -> dict[str, str]:
    metric = _one_of(raw, "metric", tuple(OBJECTIVES), to) or DEFAULT_OBJECTIVE
    direction = _one_of(raw, "direction", ("minimize", "maximize"), to) or OBJECTIVES[metric]
    if direction != OBJECTIVES[metric]:
        to.add(("direction",), f"direction: {metric} must be {OBJECTIVES[metric]}d")
    return {"metric": metric, "direction": direction}


def _read_count(raw: Mapping[Any, Any], key: str, to: FileErrors) -> int | None:
    value = raw.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    to.add((key,), f"{key}: {as_yaml(value)} must be a whole number from 1")
    return None


def _read_backbone(alias: object, raw: object, shared: Block, to: FileErrors) -> Block:
    at: Keys = ("backbones", str(alias))
    if not isinstance(alias, str) or not alias or "." in alias:
        to.add(at, f"backbones: {alias!r} must be a text without dots; set fixed: {{backbone: ..}}")
    block = _mapping(raw, at, to)
    _check_keys(block, BLOCK_KEYS, at, to)
    read = _read_block(block, at, to)
    if "backbone" in {**read.fixed, **read.search, **shared.fixed, **shared.search}:
        return read
    return Block({"backbone": str(alias), **read.fixed}, read.search)


def _read_block(raw: Mapping[Any, Any], at: Keys, to: FileErrors) -> Block:
    fixed = _mapping(raw.get("fixed"), (*at, "fixed"), to)
    search = _mapping(raw.get("search"), (*at, "search"), to)
    for name in fixed:
        if name in search:
            to.add((*at, "search", str(name)), f"{name!r} is both fixed and drawn; keep one")
    drawn: dict[str, Distribution] = {}
    for name, distribution in search.items():
        if _check_name(name, (*at, "search"), to):
            try:
                drawn[name] = parse_distribution(distribution)
            except ConfigError as error:
                to.add((*at, "search", name), f"{name}: {error}")
    known = {name: value for name, value in fixed.items() if _check_name(name, (*at, "fixed"), to)}
    return Block(known, drawn)


def _check_name(name: object, at: Keys, to: FileErrors) -> bool:
    try:
        check_parameter(name)
    except ConfigError as error:
        to.add((*at, str(name)), str(error))
        return False
    return True


def _check_shared_only(shared: Block, blocks: Mapping[str, Block], to: FileErrors) -> None:
    """Refuse a name that is given for all trials and again in a backbone's block."""
    for alias, block in blocks.items():
        for key, names in (("fixed", block.fixed), ("search", block.search)):
            for name in names:
                if name in shared.fixed or name in shared.search:
                    to.add(
                        ("backbones", alias, key, name),
                        f"{name!r} is both shared and in backbone {alias!r}; "
                        "to vary it by backbone, move it into each block",
                    )


def _read_starts(raw: object, to: FileErrors) -> tuple[Mapping[str, Scalar], ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        to.add(("start",), "start: must be a list of points, each a mapping of names to values")
        return ()
    points = [_mapping(point, ("start", str(index)), to) for index, point in enumerate(raw)]
    return tuple({str(name): value for name, value in point.items()} for point in points)


def _read_refit(raw: object, to: FileErrors) -> Mapping[str, Scalar]:
    changed = _mapping(raw, ("refit",), to)
    for name in changed:
        if why := NOT_FOR_REFITS.get(name):
            to.add(("refit", str(name)), f"refit: {name!r} can't be changed: {why}")
    return {n: value for n, value in changed.items() if _check_name(n, ("refit",), to)}


def _first_comment(text: str) -> str:
    """Return the first paragraph of the comment that the text starts with, as one line."""
    words = []
    for line in text.splitlines():
        word = line.lstrip("# ").rstrip()
        if not line.startswith("#") or not word:
            break
        words.append(word)
    return " ".join(words)
