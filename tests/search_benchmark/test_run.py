"""The whole lab: studies in, a table and a proposal out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from carray.cli import main
from carray.errors import ConfigError, RecordError
from carray.search_benchmark.curves import StudySource
from carray.search_benchmark.methods import BenchmarkRequest
from carray.search_benchmark.run import benchmark_sources, open_sources, run_benchmark
from carray.typing import Advance
from tests.search_benchmark.studies import Hill, past_study

SMALL = BenchmarkRequest(seeds=3, budget=12, lanes=2)


def test_starting_points_from_alike_data_sets_find_the_best_sooner() -> None:
    hills = [Hill(-2.0), Hill(-2.1), Hill(-1.9)]
    scores = {(s.method.name, s.method.starts): s for s in benchmark_sources(hills, SMALL).scores}
    plain, started = (scores["tpe-local, no stopping", starts] for starts in (False, True))
    assert started.regret[5] < 0.5 * plain.regret[5]
    assert started.share is not None and started.share < 0.5


def test_one_data_set_alone_has_no_starting_points() -> None:
    result = benchmark_sources([Hill(-2.0)], SMALL)
    assert not any(score.method.starts for score in result.scores)


def test_progress_counts_every_replay() -> None:
    from collections.abc import Iterator
    from contextlib import contextmanager

    counted: list[int] = []

    @contextmanager
    def counting(what: str, total: int, unit: str) -> Iterator[Advance]:
        counted.append(-total)
        yield counted.append

    benchmark_sources([Hill(-2.0)], SMALL, counting)
    assert sum(counted) == 0 and len(counted) > 1


def test_a_studys_own_records_are_replayed(tmp_path: Path) -> None:
    past_study(tmp_path, "a", ideal=-2.0, trials=24)
    past_study(tmp_path, "b", ideal=-2.2, trials=22)
    request = BenchmarkRequest(studies=("a", "b"), seeds=2, budget=4, lanes=2, runs=tmp_path)
    result = run_benchmark(request)
    assert result.data_sets == ("a", "b")
    assert all(len(score.shares) == 2 for score in result.scores)
    assert any(score.method.starts for score in result.scores)
    assert result.scores[0].regret[2] >= 0


def test_a_draw_gets_the_curve_of_the_nearest_recorded_trial(tmp_path: Path) -> None:
    source = StudySource.open(past_study(tmp_path, trials=20))
    for point, curve in zip(source.recorded.points, source.recorded.curves, strict=True):
        params = {name: point[name] for name in ("optimizer.lr", "dropout")}
        assert np.array_equal(source.curves([params])[0], curve)
    assert source.max_epochs == 9
    stopped = 20 - int(source.recorded.full.sum())
    assert f"nearest of 20 trials; the ends of {stopped} are made up" in source.note


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"seeds": 0}, "--seeds 0"), ({"budget": 0}, "--budget 0"), ({"lanes": -1}, "--lanes -1")],
)
def test_numbers_out_of_range_are_refused(changes: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run_benchmark(BenchmarkRequest(**changes))  # type: ignore[arg-type]


def test_seeds_of_one_recipe_are_nothing_to_search_among(tmp_path: Path) -> None:
    folder = past_study(tmp_path, "seeds", trials=12)
    config = folder.trial(0).record().config
    for number in range(12):
        files = folder.trial(number)
        own = config.model_copy(update={"seed": number})
        files.write_record(files.record().model_copy(update={"config": own}))
    with pytest.raises(RecordError, match="one recipe with 12 seeds"):
        StudySource.open(folder)


def test_too_few_curves_and_mixed_metrics_are_refused(tmp_path: Path) -> None:
    past_study(tmp_path, "few", trials=6)
    past_study(tmp_path, "loss", trials=20)
    past_study(tmp_path, "top1", trials=20, metric="val/top1")
    with pytest.raises(RecordError, match="6 curves, a replay needs 10"):
        open_sources(BenchmarkRequest(studies=("few",), runs=tmp_path))
    with pytest.raises(RecordError, match="replay studies of one metric"):
        open_sources(BenchmarkRequest(studies=("loss", "top1"), runs=tmp_path))
    with pytest.raises(RecordError, match=r"no model\.onnx"):
        open_sources(BenchmarkRequest(lcbench=tmp_path, runs=tmp_path))


def test_the_command_line_replays_studies_in_processes_which_gives_the_same_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    past_study(tmp_path, "a", ideal=-2.0, trials=20)
    past_study(tmp_path, "b", ideal=-3.0, trials=20)
    words = ["replay-lab", "a", "b", "--runs", str(tmp_path), "--processes", "2"]
    words += ["--seeds", "1", "--trainings", "2", "--lanes", "2", "--json"]
    monkeypatch.setattr(sys, "argv", ["carray", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    told = json.loads(capsys.readouterr().out)
    assert told["data_sets"] == ["a", "b"] and told["seeds"] == 1
    assert told["scores"][0]["name"] == "random, no stopping"
    options = {"seeds": 1, "budget": 2, "lanes": 2, "runs": tmp_path}
    alone = run_benchmark(BenchmarkRequest(studies=("a", "b"), **options))
    assert told == json.loads(json.dumps(alone.as_dict()))


def test_the_newest_study_is_replayed_where_none_is_named(tmp_path: Path) -> None:
    past_study(tmp_path, trials=20)
    (source,) = open_sources(BenchmarkRequest(runs=tmp_path))
    assert source.name == "past"
