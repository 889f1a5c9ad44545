"""JSON Schema of a search space's file, for editors that complete and underline YAML."""

from __future__ import annotations

import re
from typing import Any

from carray.config import EXTRA, TrialConfig, config_paths
from carray.metrics import OBJECTIVES
from carray.search.space.distributions import KINDS
from carray.search.space.space import BLOCK
from carray.search.space.yaml_reader import (
    NOT_FOR_REFITS,
    RECIPES,
    SAMPLERS,
    SCHEDULERS,
    VERSION,
)

Schema = dict[str, Any]


def space_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12); each parameter has its own type, range and text."""
    parameters = {path: _leaf(path) for path in config_paths()}
    own = {"type": ["number", "boolean", "string"]}
    fixed = _closed(parameters, own)
    search = _closed(
        {path: _distribution(leaf) for path, leaf in parameters.items()}, _distribution(own)
    )
    block = {"type": ["object", "null"], **_closed({"fixed": fixed, "search": search})}
    point = _closed({BLOCK: {"type": "string"}, **parameters}, own)
    properties = {
        "version": {"const": VERSION},
        "metric": {"enum": list(OBJECTIVES)},
        "direction": {"enum": ["minimize", "maximize"]},
        "fixed": fixed,
        "search": search,
        "backbones": {"type": "object", "additionalProperties": block},
        "start": {"type": "array", "items": point},
        "refit": _closed({n: s for n, s in parameters.items() if n not in NOT_FOR_REFITS}, own),
        "sampler": {"enum": list(SAMPLERS)},
        "scheduler": {"enum": list(SCHEDULERS)},
        "grace_epochs": {"type": "integer", "minimum": 1},
        "trials": {"type": "integer", "minimum": 1},
        "recipe": {"enum": list(RECIPES)},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "carray search space",
        "required": ["version"],
        "type": "object",
        **_closed(properties),
    }


def _closed(properties: Schema, own: Schema | None = None) -> Schema:
    """Return the schema of a mapping with no other keys; `own` is for an optimizer's arguments."""
    closed: Schema = {"properties": properties, "additionalProperties": False}
    if own:
        closed["patternProperties"] = {f"^{re.escape(EXTRA)}[a-z_0-9]+$": own}
    return closed


def _leaf(path: str) -> Schema:
    """Return the schema of one parameter, as pydantic writes it."""
    whole = TrialConfig.model_json_schema()
    node: Schema = whole
    for step in path.split("."):
        node = node["properties"][step]
        if "$ref" in node:
            node = whole["$defs"][node["$ref"].rpartition("/")[2]]
    return {key: value for key, value in node.items() if key != "title"}


def _distribution(leaf: Schema) -> Schema:
    """Return the schema of the four distributions over one parameter."""
    pair = {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}}
    kinds: Schema = dict.fromkeys(KINDS, pair)
    kinds["choice"] = {"type": "array", "minItems": 1, "items": leaf}
    shape = {"type": "object", "minProperties": 1, "maxProperties": 1, **_closed(kinds)}
    description = leaf.get("description")
    return {**shape, "description": description} if description else shape
