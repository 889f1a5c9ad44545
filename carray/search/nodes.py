"""What a study asks of a node before lanes are placed there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from carray.data.pixels.store import store_place
from carray.errors import PlanError
from carray.records import TrialRecord
from carray.search.placement.node_checks import Cluster, NodeChecks
from carray.search.placement.node_report import NodeQuestion
from carray.search.placement.plan import Plan
from carray.search.plans import plan_study
from carray.search.setup import StudySetup, sources_of_weights, store_inputs


def study_checks(setup: StudySetup, cluster: Cluster, say: Callable[[str], None]) -> NodeChecks:
    """Return the checks of a study's nodes; none has been made yet."""
    places = [setup.folder.path, store_place(setup.manifest)]
    return NodeChecks(cluster, study_question(setup), places, say)


def study_question(setup: StudySetup) -> NodeQuestion:
    """Return what every node must have for the study's trials."""
    return NodeQuestion(
        data=str(setup.manifest.folder.resolve()),
        manifest_hash=setup.manifest.hash,
        inputs=tuple(store_inputs(setup.space)),
        runs=str(setup.folder.path),
        weights=tuple(sources_of_weights(setup.space)),
        weights_folder=setup.weights,
    )


def checked_plan(
    setup: StudySetup,
    records: Sequence[TrialRecord],
    checks: NodeChecks,
    gpus_per_trial: float | None,
) -> Plan:
    """Fit what is left of the study to the nodes that may hold lanes.

    Raises:
        PlanError: it doesn't fit; nodes that may hold none are named with their reasons.
    """
    try:
        resources = [node.resources for node in checks.good()]
        return plan_study(setup, records, resources, gpus_per_trial)
    except PlanError as error:
        if not (refused := checks.refused()):
            raise
        raise PlanError(f"{error}; nodes that can't be used: {', '.join(refused)}") from None
