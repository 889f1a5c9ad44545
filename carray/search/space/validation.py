"""What a parsed search space may not say: values, pairs of values and starting points.

Every end of every range and every choice must build a valid `TrialConfig`, so that a range that
can't be valid is refused before the first trial and not in the thirty-seventh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Annotated, Any, cast, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from carray.compute import is_number_type
from carray.config import CROSS_CHECKED, EXTRA, TrialConfig, build_config, check_parameter
from carray.errors import ConfigError, as_yaml, did_you_mean
from carray.search.space.distributions import Scalar
from carray.search.space.space import BLOCK, Block, SearchSpace
from carray.yaml_loader import Path as Keys

Mistake = tuple[Keys, str]
TEXT_MEANT_AS_BOOL = ("yes", "no", "on", "off", "y", "n")  # booleans in YAML 1.1 only


def checked(space: SearchSpace) -> SearchSpace:
    """Return `space`, whose values may have been changed since it was read.

    Raises:
        ConfigError: a name is unknown, or the space has no valid trial left; the first mistake.
    """
    for name in space.shared.fixed:
        check_parameter(name)
    for _, sentence in wrong_values(space) or wrong_whole(space):
        raise ConfigError(f"{space.name}: {sentence}")
    return space


def wrong_values(space: SearchSpace) -> list[Mistake]:
    """Return every value and range that breaks a rule by itself, with the keys where it stands.

    Names must be known and distributions parsed.
    """
    mistakes = list(_bad_values(space.shared, ()))
    for alias, block in space.blocks.items():
        mistakes += _bad_values(block, ("backbones", alias))
    for name, value in space.refit.items():
        mistakes += [(("refit", name), f"refit: {says}") for says in _bad_value(name, value)]
    return mistakes


def wrong_whole(space: SearchSpace) -> list[Mistake]:
    """Return every backbone, starting point and refit whose values don't go together.

    Each value must be valid by itself.
    """
    mistakes: list[Mistake] = []
    for alias, branch in space.branches():
        mistakes += _bad_together(branch, ("backbones", alias) if alias else (), space.shared)
    for index, point in enumerate(space.starts):
        mistakes += [(("start", str(index)), says) for says in _bad_start(space, point)]
    if space.refit and not mistakes:
        refits = space.with_fixed(space.refit)
        both = [
            says for _, branch in refits.branches() for _, says in _bad_together(branch, (), branch)
        ]
        mistakes += [(("refit",), f"refit: {says}") for says in both[:1]]
    return mistakes


def _bad_values(block: Block, at: Keys) -> Iterator[Mistake]:
    for name, value in block.fixed.items():
        for sentence in _bad_value(name, value):
            yield (*at, "fixed", name), sentence
    for name, drawn in block.search.items():
        for sentence in [says for probe in drawn.probes() for says in _bad_value(name, probe)][:1]:
            yield (*at, "search", name), sentence


def _bad_value(name: str, value: Any) -> Iterator[str]:
    """Yield why `value` can't be the parameter `name`, if it can't."""
    field = _field(name)
    if isinstance(value, bool) and is_number_type(field.annotation):
        yield f"{name}: {as_yaml(value)} is no number: write one"
        return
    try:
        read = _adapter(name).validate_python(value)
    except ValidationError as error:
        messages = (problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        rules = dict.fromkeys(messages)
        rule = " or ".join(rule[:1].lower() + rule[1:] for rule in rules)
        yield f"{name}: {as_yaml(value)} breaks a rule: {rule}"
        return
    if isinstance(value, str | bool) and type(read) is not type(value):
        kind = "text" if isinstance(value, str) else "true or false"
        yield f"{name}: {as_yaml(value)} is {kind}; write {as_yaml(read)}"
    if value in TEXT_MEANT_AS_BOOL and bool in get_args(field.annotation):
        yield f"{name}: {value!r} is a text in YAML 1.2; write true or false"


def _bad_together(branch: Block, at: Keys, shared: Block) -> Iterator[Mistake]:
    """Yield the first pair of ends that break a rule of the whole config."""
    first = {name: drawn.ends()[0] for name, drawn in branch.search.items()}
    crossed = [name for name in CROSS_CHECKED if name in branch.search]
    for corner in product(*(branch.search[name].ends() for name in crossed)):
        params = {**branch.fixed, **first, **dict(zip(crossed, corner, strict=True))}
        try:
            build_config(params)
        except ConfigError as error:
            where = next((name for name in crossed if name in str(error)), None)
            above = () if where in shared.search else at
            yield ((*above, "search", where) if where else at), str(error)
            return


def _bad_start(space: SearchSpace, point: Any) -> Iterator[str]:
    """Yield why `point` does not lie in `space`, if it doesn't."""
    alias = point.get(BLOCK)
    if alias is not None and not (isinstance(alias, str) and alias in space.blocks):
        hint = did_you_mean(str(alias), space.blocks)
        yield f"start: there is no backbone block {alias!r}{hint}"
        return
    own = space.blocks[alias].search if alias is not None else {}
    drawn = {**space.shared.search, **own}
    bad = False
    for name, value in point.items():
        if name != BLOCK:
            for sentence in _bad_coordinate(name, value, drawn):
                bad = True
                yield f"start: {sentence}"
    if not bad:
        yield from _bad_point(space, point)


def _bad_coordinate(name: str, value: Scalar, drawn: Any) -> Iterator[str]:
    if name not in drawn:
        yield f"{name!r} is not drawn there{did_you_mean(name, [BLOCK, *drawn])}"
        return
    try:
        drawn[name].admit(value)
    except ConfigError as error:
        yield f"{name}: {error}"


def _bad_point(space: SearchSpace, point: Any) -> Iterator[str]:
    """Yield why a start point builds no valid config; what it leaves open is at its first end."""
    alias = point.get(BLOCK) or next(iter(space.blocks), None)
    branch = dict(space.branches())[alias]
    first = {name: drawn.ends()[0] for name, drawn in branch.search.items()}
    given = {name: value for name, value in point.items() if name != BLOCK}
    try:
        build_config({**branch.fixed, **first, **given})
    except ConfigError as error:
        yield f"start: {error}"


@lru_cache
def _field(name: str) -> FieldInfo:
    if name.startswith(EXTRA):
        return FieldInfo(annotation=cast(type[Any], float | bool | str))
    part: type[BaseModel] = TrialConfig
    *parents, leaf = name.split(".")
    for parent in parents:
        annotation = part.model_fields[parent].annotation
        assert isinstance(annotation, type)
        part = annotation
    return part.model_fields[leaf]


@lru_cache
def _adapter(name: str) -> TypeAdapter[Any]:
    """Return the validator of one parameter alone, without the rules between parameters."""
    field = _field(name)
    rules: Any = field.annotation
    if field.metadata:
        rules = Annotated[rules, *field.metadata]
    return TypeAdapter(rules, config=ConfigDict(allow_inf_nan=False))


def check_against_timm(space: SearchSpace) -> None:
    """Refuse names and arguments that timm doesn't know; imports it, which takes seconds.

    Raises:
        ConfigError: a backbone or a tag is unknown, and the nearest one is named; or an optimizer
            that may be drawn doesn't take an argument that may be drawn with it.
    """
    from carray.models.registry import check_name

    for name in space.backbones():
        check_name(name)
    for _, block in space.branches():
        extras = [name for name in {**block.fixed, **block.search} if name.startswith(EXTRA)]
        if extras:
            _check_optimizers(block, extras)


def _check_optimizers(block: Block, extras: Sequence[str]) -> None:
    from carray.training.optimizer import check_optimizer

    first = {name: block.values_of(name)[0] for name in extras}
    varied = [first, *({**first, name: end} for name in extras for end in block.values_of(name))]
    for optimizer in block.values_of("optimizer.name"):
        for values in varied:
            check_optimizer(build_config({**values, "optimizer.name": optimizer}).optimizer)
