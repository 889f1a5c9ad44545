"""`SearchSpace`: which trials a study may draw, read from YAML and checked whole.

`draw` asks Optuna for the values of one trial, `resolve` turns those values into a `TrialConfig`;
`carray.search.space.loading.load_space` reads a space from its file.

A parameter of a backbone's own block carries the block's name in Optuna and in params
(`vit_small.optimizer.layer_decay`), so that no name ever has two ranges; `dotted` takes it off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from carray.config import TrialConfig, build_config, default_of
from carray.errors import ConfigError, did_you_mean
from carray.search.space.distributions import Choice, Distribution, Scalar

if TYPE_CHECKING:
    import optuna

BLOCK = "backbone_block"  # Optuna's name of the drawn block
IMAGE_SIZE = "image_size"
Params = Mapping[str, Any]  # what was drawn, by Optuna's names or by dotted ones


@dataclass(frozen=True)
class Block:
    """What is fixed and what is drawn; for every trial, or where one backbone is drawn."""

    fixed: Mapping[str, Scalar] = field(default_factory=dict)
    search: Mapping[str, Distribution] = field(default_factory=dict)

    def values_of(self, name: str) -> tuple[Any, ...]:
        """Return what the parameter `name` may be: its choices, its range's ends, or one value."""
        if drawn := self.search.get(name):
            return drawn.ends()
        return (self.fixed[name] if name in self.fixed else default_of(name),)

    def without(self, names: Mapping[str, Any]) -> Block:
        """Return this block with `names` neither fixed nor drawn."""
        return Block(
            {name: value for name, value in self.fixed.items() if name not in names},
            {name: drawn for name, drawn in self.search.items() if name not in names},
        )


@dataclass(frozen=True)
class SearchSpace:
    """Which trials a study may draw, and what they are compared by."""

    name: str
    metric: str
    direction: str
    shared: Block
    blocks: Mapping[str, Block] = field(default_factory=dict)
    starts: tuple[Mapping[str, Scalar], ...] = ()
    """Points to try first, by dotted names; a block by its own under `BLOCK`."""
    refit: Mapping[str, Scalar] = field(default_factory=dict)
    """What is different where a trial is trained again for longer, by dotted names."""
    sampler: str | None = None
    scheduler: str | None = None
    grace_epochs: int | None = None
    """Epochs that every trial gets before the scheduler may stop it; None: by their number."""
    trials: int | None = None
    """Defaults of a study over this space; None leaves them to the study."""
    question: str = ""
    """The first paragraph of the file's first comment."""
    text: str = ""
    """The file as it was read."""
    names_metric: bool = True
    """Whether the file says what trials are compared by; else a study keeps what it began with."""
    recipe: bool = True
    """Whether what a trial neither fixes nor draws is its backbone's known recipe."""
    images: int | None = None
    """Of one epoch, which the recipe goes by; None: no data are known, and defaults do."""

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """Ask Optuna for one trial's values; return them by Optuna's names."""
        params: dict[str, Any] = {}
        if self.blocks:
            params[BLOCK] = trial.suggest_categorical(BLOCK, tuple(self.blocks))
        drawn = self._drawn(params.get(BLOCK))
        return params | {name: drawn[name].suggest(trial, name) for name in drawn}

    def resolve(self, params: Params, overrides: Params | None = None) -> TrialConfig:
        """Return the config that drawn `params` stand for; `overrides` win over all else.

        Params may have Optuna's names or dotted ones, so a record's do as well.

        Raises:
            ConfigError: a name is missing or isn't this space's, or a value breaks a rule.
        """
        dotted = self.dotted(params)
        alias = dotted.pop(BLOCK, None)
        block = self.blocks[alias] if alias is not None else Block()
        missing = {*self.shared.search, *block.search} - set(dotted)
        if missing:
            raise ConfigError(f"{self.name}: params lack {', '.join(sorted(missing))}")
        # the epoch that is kept is the one that the study would choose
        fixed = {"best_metric": self.metric, **self.shared.fixed, **block.fixed}
        return self.completed({**fixed, **dotted, **(overrides or {})})

    def completed(self, params: Params) -> TrialConfig:
        """Return the config of dotted `params`; what they leave open is the known recipe.

        Raises:
            ConfigError: a value breaks a rule.
        """
        if not self.recipe or self.images is None:
            return build_config(params)
        from carray.models.recipes import complete_config  # torch and timm: seconds

        return complete_config(params, self.images)

    def dotted(self, params: Params) -> dict[str, Any]:
        """Return `params` by dotted names, the drawn block under `BLOCK`.

        Raises:
            ConfigError: a name isn't this space's, or no block is named where there are some.
        """
        alias = params.get(BLOCK)
        if self.blocks and alias not in self.blocks:
            raise ConfigError(
                f"{self.name}: {BLOCK}={alias!r} must be one of {', '.join(self.blocks)}"
            )
        known = {*self.shared.search, *self._own(alias).search, *([BLOCK] if alias else [])}
        prefix = f"{alias}."
        dotted = {name.removeprefix(prefix): value for name, value in params.items()}
        for name in dotted:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ConfigError(f"{self.name}: {name!r} is not drawn in this space{hint}")
        return dotted

    @property
    def distributions(self) -> dict[str, Any]:
        """Optuna's distribution of every name that any trial may draw."""
        found = {BLOCK: Choice(tuple(self.blocks)).for_optuna()} if self.blocks else {}
        for alias in self.blocks or (None,):
            found |= {name: drawn.for_optuna() for name, drawn in self._drawn(alias).items()}
        return found

    def start_points(self) -> list[dict[str, Any]]:
        """Return the points to try first, by Optuna's names, for `study.enqueue_trial`."""
        return [self.by_optuna_names(point) for point in self.starts]

    def by_optuna_names(self, point: Mapping[str, Scalar]) -> dict[str, Any]:
        """Return a point that is given by dotted names."""
        alias = point.get(BLOCK)
        own = self._own(str(alias) if alias is not None else None).search
        drawn = {**self.shared.search, **own, BLOCK: Choice(tuple(self.blocks) or (alias,))}
        return {
            f"{alias}.{name}" if name in own else name: drawn[name].admit(value)
            for name, value in point.items()
        }

    def backbones(self) -> tuple[str, ...]:
        """Return every backbone that a trial may have, as timm names them."""
        names = (name for _, block in self.branches() for name in block.values_of("backbone"))
        return tuple(dict.fromkeys(names))

    @property
    def is_pretrained(self) -> bool:
        """Whether a trial may begin with pretrained weights."""
        values = (v for _, branch in self.branches() for v in branch.values_of("pretrained"))
        return any(values)

    @property
    def refit_pixels(self) -> float:
        """Pixels of a longer refit's images, over those of the trials that have most."""
        most = max(s for _, branch in self.branches() for s in branch.values_of(IMAGE_SIZE))
        return float((self.refit.get(IMAGE_SIZE, most) / most) ** 2)

    def branches(self) -> Iterator[tuple[str | None, Block]]:
        """Yield each backbone's name and all that a trial of it fixes and draws."""
        for alias in self.blocks or (None,):
            own = self._own(alias)
            yield (
                alias,
                Block({**self.shared.fixed, **own.fixed}, {**self.shared.search, **own.search}),
            )

    def with_fixed(self, fixed: Params) -> SearchSpace:
        """Return this space with `fixed` in place of what it fixes or draws there.

        The result may hold what no trial can have: `carray.search.space.validation.checked`.
        """
        shared = self.shared.without(fixed)
        return replace(
            self,
            shared=Block({**shared.fixed, **fixed}, shared.search),
            blocks={alias: block.without(fixed) for alias, block in self.blocks.items()},
            starts=tuple(
                {name: value for name, value in point.items() if name not in fixed}
                for point in self.starts
            ),
            refit={name: value for name, value in self.refit.items() if name not in fixed},
        )

    def sample(self, count: int, seed: int = 0) -> list[dict[str, Any]]:
        """Return `count` random draws, by Optuna's names; nothing is stored."""
        import optuna

        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
            return [self.draw(study.ask()) for _ in range(count)]
        finally:
            optuna.logging.set_verbosity(verbosity)

    @property
    def hash(self) -> str:
        """16 hex digits of all that decides which trials can be drawn and what is better.

        Comments, starting points, what refits change and a study's defaults don't count.
        """
        blocks = {alias: _plain(block) for alias, block in self.blocks.items()}
        content = (self.metric, self.direction, _plain(self.shared), blocks)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _own(self, alias: str | None) -> Block:
        return self.blocks[alias] if alias is not None else Block()

    def _drawn(self, alias: str | None) -> dict[str, Distribution]:
        """Return what a trial of block `alias` draws besides the block, by Optuna's names."""
        own = {f"{alias}.{name}": drawn for name, drawn in self._own(alias).search.items()}
        return {**self.shared.search, **own}


def _plain(block: Block) -> list[dict[str, Any]]:
    drawn = {name: distribution.raw() for name, distribution in block.search.items()}
    return [dict(block.fixed), drawn]
