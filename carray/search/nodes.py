"""What a study asks of a node before lanes are placed there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from carray.data.pixels.store import store_place
from carray.errors import PlanError, counted
from carray.lanes.depot import StudyPlaces, remove_left
from carray.lanes.lane import Lanes
from carray.models.weights import find_weights
from carray.provenance import module_hash
from carray.records import TrialRecord
from carray.search.placement.node_checks import LEFT, Cluster, NodeChecks, left_files
from carray.search.placement.node_report import NodeQuestion
from carray.search.placement.plan import Node, Plan
from carray.search.placement.ray_cluster import ACCELERATOR, has_started_ray
from carray.search.plans import plan_study
from carray.search.setting_notes import own_transforms
from carray.search.setup import StudySetup, store_inputs
from carray.search.space.weights import has_weights, sources_of_weights
from carray.storage.mirror import mirror_of

ANY = 0.001  # of a kind's resource, of which a node has 1
LOOK_SECONDS = 2.0  # between two looks at a cluster that is to grow


def study_checks(setup: StudySetup, cluster: Cluster, say: Callable[[str], None]) -> NodeChecks:
    """Return the checks of a study's nodes; none has been made yet."""
    places = [setup.folder.path, store_place(setup.manifest)]
    return NodeChecks(
        cluster,
        study_question(setup),
        places,
        say,
        accelerator=setup.request.accelerator,
        trusts_own=all(
            has_weights(*each, setup.weights) for each in sources_of_weights(setup.space)
        ),
    )


def study_question(setup: StudySetup) -> NodeQuestion:
    """Return what every node must have for the study's trials."""
    return NodeQuestion(
        data=setup.manifest.where,
        manifest_hash=setup.manifest.hash,
        inputs=tuple(store_inputs(setup.space)),
        runs=str(setup.folder.path),
        weights=tuple(sources_of_weights(setup.space)),
        weights_folder=setup.weights,
        sends_weights=() if has_started_ray() else tuple(own_weights(setup)),
        transforms=tuple((name, module_hash(name)) for name in own_transforms(setup.space)),
        sends_runs=True,
        sends_images=0 if mirror_of(setup.manifest.folder) else len(setup.manifest.included),
    )


def own_weights(setup: StudySetup) -> dict[str, str]:
    """Return the file of weights of each backbone that this machine has one of in its folder."""
    wanted = (backbone for backbone, source in sources_of_weights(setup.space) if source is True)
    found = {backbone: find_weights(backbone, True, setup.weights) for backbone in wanted}
    return {backbone: str(file.absolute()) for backbone, file in found.items() if file}


def teachers(setup: StudySetup) -> dict[str, str]:
    """Return the hash of the card of each package that trials may learn from, by its folder."""
    from carray.training.teacher import card_hash

    blocks = (block for _, block in setup.space.branches())
    named = {name for block in blocks for name in block.values_of("distill.teacher") if name}
    return {name: card_hash(name) for name in sorted(named)}


@contextmanager
def travelling_files(setup: StudySetup) -> Iterator[StudyPlaces | None]:
    """Leave what tells nodes that see the study's folder; yield where its files are.

    None where this process has started Ray: there is one node, and none joins.
    """
    if has_started_ray():
        yield None
        return
    study, manifest = setup.folder.path, setup.manifest
    remove_left(study)
    for left in study.glob(f"{LEFT}*"):  # by a driver that was killed
        left.unlink(missing_ok=True)
    with left_files([study]) as nonce:
        data, stores = str(manifest.folder), str(store_place(manifest))
        places = StudyPlaces(str(study), nonce, data, stores, manifest.hash)
        yield replace(places, weights=own_weights(setup), teachers=teachers(setup))
    remove_left(study)


def awaited_plan(
    setup: StudySetup,
    records: Sequence[TrialRecord],
    checks: NodeChecks,
    cluster: Cluster,
    resolve_gpus: Callable[[Sequence[Node]], float | None],
    say: Callable[[str], None],
) -> Plan:
    """Fit what is left of the study to the nodes that may hold lanes; wait for `--min-lanes`.

    Meanwhile, which is said, the cluster is asked for as many lanes as are wanted.

    Raises:
        PlanError: it doesn't fit, or not in time; nodes that may hold none are named with reasons.
    """
    deadline = time.monotonic() + setup.request.place_timeout_seconds
    fitted = -1
    while True:
        checks.look()
        plan = checked_plan(setup, records, checks, resolve_gpus)
        least = min(setup.request.min_lanes or 0, plan.most)
        if setup.request.min_lanes:
            kind = setup.request.accelerator
            beside = {f"{ACCELERATOR}{kind}": ANY} if kind else {}
            cluster.request([bundle | beside for bundle in plan.bundles(plan.most)])
        if plan.lanes >= least:
            return plan
        if has_started_ray() or time.monotonic() > deadline:
            raise PlanError(
                f"{_fit_text(plan, least, checks)}{_refused_text(checks)}; ask for fewer, or "
                "join a larger cluster"
            )
        if plan.lanes != fitted:
            fitted = plan.lanes
            fit, patience = _fit_text(plan, least, checks), setup.request.place_timeout_seconds
            say(f"{fit}; waiting for others, up to {patience:.0f} s")
        time.sleep(LOOK_SECONDS)


def checked_plan(
    setup: StudySetup,
    records: Sequence[TrialRecord],
    checks: NodeChecks,
    resolve_gpus: Callable[[Sequence[Node]], float | None],
) -> Plan:
    """Fit what is left of the study to the nodes that may hold lanes.

    Raises:
        PlanError: it doesn't fit; nodes that may hold none are named with their reasons.
    """
    resources = [node.resources for node in checks.good()]
    kind = setup.request.accelerator
    if kind is not None and kind not in checks.accelerators() and not setup.request.min_lanes:
        there = ", ".join(checks.accelerators()) or "none"
        raise PlanError(f"--accelerator {kind}: no node has one; the cluster has {there}")
    try:
        return plan_study(setup, records, resources, resolve_gpus(resources))
    except PlanError as error:
        if not checks.refused():
            raise
        raise PlanError(f"{error}{_refused_text(checks)}") from None


def _fit_text(plan: Plan, least: int, checks: NodeChecks) -> str:
    return f"room for {plan.lanes} of --min-lanes {least} on {counted(len(checks.good()), 'node')}"


def _refused_text(checks: NodeChecks) -> str:
    refused = checks.refused()
    return f"; nodes that can't be used: {', '.join(refused)}" if refused else ""


class Growth:
    """Adds lanes where nodes join, or are mended, up to as many as are wanted.

    Of a Ray that this process has started there is one node, and nothing to add.
    """

    def __init__(
        self, lanes: Lanes, checks: NodeChecks, plan: Plan, open_trials: Callable[[], int]
    ) -> None:
        self._lanes, self._checks, self._plan = lanes, checks, plan
        self._open_trials = open_trials  # how many there are still to train
        self._blamed = 0

    def wanted(self) -> int:
        """Return how many lanes there should be: as asked for, else those that there were."""
        return self._plan.most or self._lanes.num_lanes

    def look(self) -> None:
        """Check nodes, and begin the lanes that they have room for."""
        if has_started_ray():
            return
        unfit = self._lanes.mailbox.unfit_nodes()
        for nodes, why in unfit[self._blamed :]:
            self._checks.refuse(nodes, why)
        self._blamed = len(unfit)
        self._checks.look()
        good = self._checks.good()
        self._lanes.place_on([node.id for node in good])
        room = self._plan.fit([node.resources for node in good])
        most = min(self._plan.most or room, self._open_trials(), room)
        lacking = most - self._lanes.present()
        if lacking > 0:
            self._lanes.add(lacking)
