"""Which trials are trained again, for how long, and what of a budget that gets.

Of equal budgets one that tries few configurations and trains the best of them several times as long
brings an ensemble more than one that tries many: `tests/benchmarks/README.md` has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from carray.records import TrialRecord, TrialState
from carray.search.request import StudyRequest, asked_budget, refit_count
from carray.search.space.space import SearchSpace

LENGTH = 2  # a refit's epochs over the search's, where none are given
LENGTH_IN_BUDGET = 4  # within a budget, where so long ones fit
FEWEST = 2  # of so long ones where shorter ones may take their place: an ensemble wants several
ENOUGH = 3  # of so long ones of pretrained networks that see no more, or of seeds beside one
MOST_EPOCHS = 60  # of a refit over `LENGTH` times as long: none that were longer are measured
SHARE = 0.8  # of a budget, for refits and folds: the most
SEEDS_APART = 1000  # a refit's further seed and the trial's: none that another trial has


@dataclass(frozen=True)
class Refit:
    """A trial that is to be trained again.

    Attributes:
        of: the trial.
        epochs: that it is trained for.
        seed: its own or another.
    """

    of: TrialRecord
    epochs: int
    seed: int

    @classmethod
    def longer(cls, of: TrialRecord, epochs: int, further_seed: int = 0) -> Self:
        """Return one of `epochs`, by the trial's own seed or its first, second, ... further one."""
        return cls(of, epochs, (of.config.seed + SEEDS_APART * further_seed) % 2**31)

    @property
    def name(self) -> str:
        """What it trains again: `trial 0003 with a further seed`."""
        is_further = self.seed != self.of.config.seed
        return f"trial {self.of.number:04d}{' with a further seed' * is_further}"

    def is_alike(self, other: Refit) -> bool:
        """Say whether another refit is this one, or shorter or longer."""
        return (self.of.number, self.seed) == (other.of.number, other.seed)

    def is_same(self, record: TrialRecord, *, of_any_length: bool = False) -> bool:
        """Say whether a record is that of this refit, or of one that is shorter or longer."""
        known = record.config
        is_as_long = of_any_length or known.epochs == self.epochs
        return is_as_long and (record.refit_of, known.seed) == (self.of.number, self.seed)

    def has_ended(self, records: Iterable[TrialRecord], *, or_longer: bool = False) -> bool:
        """Say whether one of the records is that of this refit, and finished; or a longer one's.

        One given up isn't. The trial itself is no other than its refit of as many epochs.
        """
        if (self.epochs, self.seed) == (self.of.config.epochs, self.of.config.seed):
            return self.of.state.is_finished()
        return any(
            self.is_same(record, of_any_length=or_longer)
            and record.config.epochs >= self.epochs
            and record.state.is_finished()
            and record.state is not TrialState.PRUNED
            for record in records
        )


def wanted_refits(request: StudyRequest, ranked: Sequence[TrialRecord], epochs: int) -> list[Refit]:
    """Return the refits that are asked for, in the order in which a budget takes them.

    Where a call says how many, those are the best trials. A budget that says nothing takes further
    seeds, so that the trials stay members beside them: the n-th best trial gets its next seed when
    the best one gets its n times as many-th, so that what is trained again lies neither all on one
    configuration nor on ever worse ones.

    Args:
        request: of the study.
        ranked: its trials, the best first.
        epochs: of a refit.
    """
    count = refit_count(request)
    if not leaves_refits_open(request):
        return [Refit.longer(of, epochs) for of in ranked[:count]]
    complete = [record for record in ranked if record.state is TrialState.COMPLETE]
    places = [(rank, seed) for rank in range(len(complete)) for seed in range(count)]
    places.sort(key=lambda place: ((place[0] + 1) * (place[1] + 1), place[1]))
    return [Refit.longer(complete[rank], epochs, seed + 1) for rank, seed in places[:count]]


def leaves_refits_open(request: StudyRequest) -> bool:
    """Say whether a budget alone says how many refits there are: as many as fit."""
    return request.refit is None and asked_budget(request) is not None


def refit_lengths(request: StudyRequest, max_epochs: int, space: SearchSpace) -> tuple[int, ...]:
    """Return the epochs that refits may have, the longest first: those asked for, or by default.

    Twice a trial's are little for a pretrained network: further seeds bring as much. Where refits
    see larger images they have fewer epochs for the same time.
    """
    if request.refit_epochs is not None:
        return (request.refit_epochs,)
    least = LENGTH * max_epochs
    if not leaves_refits_open(request):
        return (least,)
    most = min(LENGTH_IN_BUDGET * max_epochs, MOST_EPOCHS)
    most = max(least, round(most / space.refit_pixels))
    return (most,) if space.is_pretrained else tuple(dict.fromkeys((most, least)))


def shorter_lengths(request: StudyRequest, max_epochs: int) -> tuple[int, ...]:
    """Return the epochs of refits where too few of `refit_lengths` fit: a trial's, or none."""
    is_ours = leaves_refits_open(request) and request.refit_epochs is None
    return (max_epochs,) if is_ours else ()


def refit_rounds(
    lengths: tuple[int, ...],
    seconds: Callable[[int], float],
    budget: float,
    most: int,
    lanes: int = 1,
    shorter: tuple[int, ...] = (),
    enough: int = 1,
) -> tuple[int, ...]:
    """Return the epochs of each round of refits that a budget has, the longest first.

    They are of one length, the longest of which enough fit. Where too few of any do, further seeds
    as long as a trial stand beside one round, or alone where there would be too few beside it.

    Args:
        lengths: of refits, the longest first.
        seconds: that so many epochs take.
        budget: in seconds.
        most: rounds.
        lanes: refits in a round.
        shorter: `shorter_lengths`.
        enough: of the shortest length, or of further seeds beside one; fewer aren't taken.
    """
    share, fitting = SHARE * budget, 0
    for epochs in lengths:
        each = seconds(epochs)
        fitting = min(most, int(share / each)) if each else 0
        if fitting * lanes >= fewest(epochs, lengths, enough):
            return (epochs,) * fitting
    each = seconds(shorter[0]) if shorter else 0.0
    if not each:
        return (lengths[-1],) * fitting
    beside = min(most - 1, int((share - seconds(lengths[-1])) / each))
    if beside * lanes >= enough:
        return lengths[-1], *shorter * beside
    return shorter * min(most, int(share / each))


def fewest(epochs: int, lengths: tuple[int, ...], enough: int) -> int:
    """Return how many refits of a length must fit, lest shorter ones be taken."""
    return FEWEST if epochs > lengths[-1] else enough


def enough_refits(request: StudyRequest, space: SearchSpace) -> int:
    """Return how many long refits a budget must have room for, lest it take further seeds.

    Of pretrained networks it is several, unless refits see larger images: one is worth more then.
    """
    by_length = space.is_pretrained and space.refit_pixels <= 1
    return ENOUGH if by_length and shorter_lengths(request, 1) else 1
