"""Where actors of a study run that every lane asks: on the driver's own node."""

from __future__ import annotations

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Return what has Ray place an actor on this process's node, and nowhere else."""
    return on_node(ray.get_runtime_context().get_node_id())


def on_node(node: str) -> NodeAffinitySchedulingStrategy:
    """Return what has Ray place an actor or a task on the node of this id, and nowhere else."""
    return NodeAffinitySchedulingStrategy(node, soft=False)
