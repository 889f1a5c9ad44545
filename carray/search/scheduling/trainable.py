"""Ray Tune's trainable: sends the next epoch to a lane and reports the answer.

It imports no torch and holds no GPU, so Tune may stop, pause and resume it at no cost.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable

from carray.lanes.messages import LaneOrder
from carray.records import TrialFolder
from carray.training.epoch_order import EpochOrder
from carray.training.stopping import stop_reason

if TYPE_CHECKING:
    from carray.lanes.mailbox_client import MailboxClient

EPOCH = "epoch"  # Tune's time attribute; never `training_iteration`, which restarts
NETWORK_COST = "network_cost"  # in the config: as records have it
STATE = "carray_state"  # in the last result: how the trial ended by itself
REASON = "carray_reason"
FACTS = "carray_facts"
ROW = "carray_row"  # the epoch's metrics


class LaneTrainable(Trainable):  # type: ignore[misc]
    """One trial as Tune sees it; its config is `{mailbox, job, metric}`."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take a trial on: what its record holds is reported again, not trained again."""
        self._mailbox: MailboxClient = config["mailbox"]
        self._metric: str = config["metric"]
        self._job = EpochOrder.model_validate_json(config["job"])
        self._epoch = 0
        self._paused = False
        self._known = TrialFolder(Path(self._job.folder)).record().epochs

    def step(self) -> dict[str, Any]:
        """Bring the trial one epoch further."""
        self._epoch += 1
        self._paused = False
        if self._epoch < len(self._known):
            return self._result(dict(self._known[self._epoch - 1]), {}, "", "")
        job = self._job.model_copy(update={"epoch": self._epoch})
        asked_at = time.time()
        answer = self._mailbox.call(LaneOrder("epoch", job))
        if answer.outcome is None:
            return {
                EPOCH: self._epoch - 1,
                STATE: answer.state,
                REASON: answer.reason,
                "done": True,
            }
        if self._epoch == len(self._known):
            return self._again()
        facts = {
            **answer.outcome.facts(),
            "lane": answer.lane,
            "lane_waited_seconds": answer.waited_seconds,
            "asked_at": asked_at,
        }
        outcome = answer.outcome
        return self._result(outcome.metrics, facts, outcome.stop, outcome.ending)

    def _again(self) -> dict[str, Any]:
        """Report the last epoch of an earlier call, which may have been killed before the end.

        A lane was asked for it: its checkpoint says it at once, and where that was lost with a
        machine, so are the weights, whatever the record holds.
        """
        stop, ending = stop_reason(self._known, self._job.config)
        return self._result(dict(self._known[-1]), {}, stop, ending)

    def _result(
        self, row: dict[str, float], facts: dict[str, Any], stop: str, ending: str
    ) -> dict[str, Any]:
        result: dict[str, Any] = {EPOCH: self._epoch}
        if self._metric in row:
            result[self._metric] = row[self._metric]
        if facts:
            # As tuples: of other numbers Tune would keep running averages at every report.
            result |= {FACTS: tuple(facts.items()), ROW: tuple(row.items())}
        if stop:
            result |= {"done": True, STATE: ending, REASON: stop}
        elif self._epoch >= self._job.config.epochs:
            result |= {"done": True, STATE: "complete", REASON: ""}
        return result

    def get_auto_filled_metrics(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Leave out the config: the driver has it, and would flatten it at every report."""
        filled: dict[str, Any] = super().get_auto_filled_metrics(*args, **options)
        filled.pop("config", None)
        return filled

    def cleanup(self) -> None:
        """End this trial's part: a paused one's lane is freed, an ended one's is by its order."""
        if self._paused:
            self._mailbox.leave(self._job.trial)

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Pausing needs a checkpoint, and nothing else asks for one: the epoch says it all."""
        self._paused = True
        return {EPOCH: self._epoch}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Go on after a pause."""
        self._epoch = int(checkpoint[EPOCH]) if checkpoint else 0
