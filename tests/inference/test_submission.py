"""Submissions with a probability column a class, in a sample's order, merged classes included."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from carray.errors import ConfigError, DataError, RecordError, WeightsError
from carray.inference.predict import predict_to_csv
from carray.inference.predictor import load_model
from carray.inference.submission import class_columns
from carray.predictions.candidates import read_trials
from carray.predictions.logits import SplitPredictions
from tests.ensemble.studies import StudySpec, Trial, make_study
from tests.trained import Trained

HERE = Path("sample.csv")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def some_files(trained: Trained, count: int = 5) -> list[str]:
    return [str(path) for path in trained.manifest.included["path"][:count]]


def write_sample(file: Path, columns: list[str], ids: list[str]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["ID", *columns])
        writer.writerows([own, *[0] * len(columns)] for own in ids)
    return file


def test_columns_follow_the_sample_and_rows_add_up_to_one(trained: Trained, tmp_path: Path) -> None:
    files = some_files(trained)
    ids = [Path(file).stem for file in files][::-1]
    columns = list(trained.manifest.classes)[::-1]
    sample = write_sample(tmp_path / "sample.csv", columns, ids)
    done = predict_to_csv(
        "single/0000", files, tmp_path / "out.csv", sample=sample, runs=trained.runs
    )
    rows = rows_of(tmp_path / "out.csv")
    assert list(rows[0]) == ["ID", *columns]
    assert [row["ID"] for row in rows] == ids
    p = load_model(done.model).predict(files)[::-1, ::-1]
    written = np.array([[float(row[name]) for name in columns] for row in rows])
    assert np.allclose(written, p, atol=1e-6)
    assert np.allclose(written.sum(axis=1), 1, atol=1e-6)


def test_the_names_before_merging_share_their_classes_probability(
    trained: Trained, tmp_path: Path
) -> None:
    merge = trained.manifest.settings.merge
    assert len(merge) == 6
    columns = sorted({*merge, *trained.manifest.classes} - set(merge.values()))
    assert len(columns) == 12
    files = some_files(trained)
    sample = write_sample(tmp_path / "s.csv", columns, [Path(file).stem for file in files])
    done = predict_to_csv(
        "single/0000", files, tmp_path / "o.csv", sample=sample, runs=trained.runs
    )
    rows = rows_of(tmp_path / "o.csv")
    p = load_model(done.model).predict(files)
    old, new = next(iter(merge.items()))
    place = trained.manifest.classes.index(new)
    assert float(rows[0][old]) == pytest.approx(p[0, place] / 2, abs=1e-6)
    assert sum(float(rows[0][name]) for name in columns) == pytest.approx(1, abs=1e-6)
    assert any("classes were merged" in note for note in done.notes)


def test_without_a_sample_the_models_classes_are_the_columns(
    trained: Trained, tmp_path: Path
) -> None:
    files = some_files(trained)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    predict_to_csv(
        "single/0000",
        [*files, str(broken)],
        tmp_path / "o.csv",
        probabilities=True,
        runs=trained.runs,
    )
    rows = rows_of(tmp_path / "o.csv")
    assert list(rows[0]) == ["Id", *trained.manifest.classes]
    written = np.array([[float(row[name]) for name in trained.manifest.classes] for row in rows])
    assert np.allclose(written[-1], written[:-1].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (["a", "b", "cc"], r"columns for 'cc', which are no classes .* it knows 3 classes"),
        (["a", "b"], "no column for 'c': the model knows 3 classes, the sample 2"),
        (["a", "old b", "c"], "columns for 'old b'"),
    ],
)
def test_unknown_and_missing_classes_are_named(columns: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        class_columns(columns, ("a", "b", "c"), {"old c": "c"}, HERE)


def test_a_sample_of_one_category_takes_no_probabilities(trained: Trained, tmp_path: Path) -> None:
    files = some_files(trained)
    sample = write_sample(tmp_path / "s.csv", ["Category"], [Path(files[0]).stem])
    with pytest.raises(ConfigError, match="has 'Category' alone"):
        predict_to_csv(
            "single/0000", files, "o.csv", sample=sample, probabilities=True, runs=trained.runs
        )


def test_members_of_other_class_counts_are_refused_with_both_sides(tmp_path: Path) -> None:
    folder = make_study(tmp_path, StudySpec([Trial(), Trial()]))
    wider = folder.trial(1).logits("val")
    folder.trial(1).write_logits({"val": np.pad(wider, ((0, 0), (0, 1)))})
    votes = SplitPredictions(read_trials(folder), "val", folder.labels("val"))
    with pytest.raises(RecordError, match=r"of [67] classes on 'val' and autumn/000\d of [67]"):
        _ = [votes.log_p(0), votes.log_p(1)]


def test_weights_of_other_class_counts_are_refused_with_both_sides(
    trained: Trained, tmp_path: Path
) -> None:
    from carray.models.classifier import load_classifier

    config = trained.study.trial(0).record().config
    with pytest.raises(WeightsError, match=r"are no 'test_resnet' with 12 classes: size mismatch"):
        load_classifier(config, 12, trained.study.trial(0).weights_file)


def test_an_id_that_may_be_two_images_is_refused(trained: Trained, tmp_path: Path) -> None:
    files = some_files(trained, 2)
    folder = tmp_path / "images"
    for place, name in enumerate(("a/1.jpg", "b/1.jpg")):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(files[place], folder / name)
    sample = write_sample(tmp_path / "s.csv", ["Category"], ["1"])
    out = tmp_path / "o.csv"
    with pytest.raises(DataError, match=r"'1' \(.*a/1.jpg and .*b/1.jpg\)"):
        predict_to_csv("single/0000", [folder], out, sample=sample, runs=trained.runs)
    write_sample(sample, ["Category"], ["b/1", "a/1.jpg"])
    predict_to_csv("single/0000", [folder, folder], out, sample=sample, runs=trained.runs)
    assert [row["ID"] for row in rows_of(out)] == ["b/1", "a/1.jpg"]
