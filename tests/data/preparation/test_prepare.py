"""`prepare` splits fairly and finds what is wrong before anything trains."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carray.data.manifest import Manifest
from carray.data.preparation.prepare import prepare
from carray.data.summary import image_statistics, summarise
from carray.errors import DataError
from carray.reports.class_statistics import image_lines
from tests.data.pictures import image_folder, picture, save
from tests.data.preparation.test_sources import CARS, devkit

COUNTS = {"Pip": 40, "Jack": 50, "소나타": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("photos") / "cars", COUNTS)


def reasons(manifest: Manifest) -> dict[str, str]:
    out = manifest.images[manifest.images["excluded"] != ""]
    return dict(zip(out["image_id"], out["excluded"], strict=True))


def splits_of(manifest: Manifest) -> dict[str, str]:
    return dict(zip(manifest.included["image_id"], manifest.included["split"], strict=True))


def test_a_folder_is_cut_into_four_stratified_splits(folder: Path, tmp_path: Path) -> None:
    manifest = prepare(folder, tmp_path / "data", blend_size=0.3, seed=3)
    assert manifest.classes == ("Jack", "Pip", "소나타")
    assert manifest.class_counts().loc["Jack"].tolist() == [20, 8, 15, 7]
    assert manifest.class_counts().loc["소나타"].tolist() == [24, 9, 18, 9]
    assert sorted(
        np.concatenate([manifest.rows(s) for s in ("train", "val", "blend", "test")])
    ) == [*range(150)]
    assert manifest.settings.source_splits == ()
    assert manifest.settings.notes == ()


def test_what_is_written_is_what_is_read(folder: Path, tmp_path: Path) -> None:
    manifest = prepare(folder, tmp_path / "data", folds=3)
    again = Manifest.load(tmp_path / "data")
    assert again.hash == manifest.hash
    assert again.classes == manifest.classes
    assert again.settings == manifest.settings
    assert again.images.equals(manifest.images)


def test_too_few_images_for_a_blend_split_are_said(folder: Path, tmp_path: Path) -> None:
    manifest = prepare(folder, tmp_path / "data")
    assert len(manifest.rows("blend")) == 0
    assert "no blend split: it would hold 15 images" in manifest.settings.notes[0]


def test_folds_partition_train_and_hold_each_class(folder: Path, tmp_path: Path) -> None:
    manifest = prepare(folder, tmp_path / "data", folds=4)
    held = [manifest.fold_rows(fold)[1] for fold in range(4)]
    assert sorted(np.concatenate(held)) == sorted(manifest.rows("train"))
    for fold in range(4):
        train, held_rows = manifest.fold_rows(fold)
        assert not set(train) & set(held_rows)
        assert set(manifest.labels[held_rows]) == {0, 1, 2}
    with pytest.raises(DataError, match=r"fold 4 .* isn't among 4"):
        manifest.fold_rows(4)


def test_a_seed_repeats_and_another_differs(folder: Path, tmp_path: Path) -> None:
    first, same = (prepare(folder, tmp_path / name, seed=1) for name in ("a", "b"))
    other = prepare(folder, tmp_path / "c", seed=2)
    assert first.hash == same.hash
    assert splits_of(first) != splits_of(other)
    assert first.hash != other.hash
    assert first.pixels_hash == other.pixels_hash, "the decoded pixels can be kept"


def test_the_hash_is_the_same_wherever_the_images_are(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "cars"
    shutil.copytree(folder, moved)
    assert prepare(folder, tmp_path / "a").hash == prepare(moved, tmp_path / "b").hash


def test_the_sources_own_splits_are_kept_and_blend_is_cut_from_train(tmp_path: Path) -> None:
    source = tmp_path / "cars"
    for number, (split, count) in enumerate((("train", 60), ("valid", 10), ("test", 15))):
        image_folder(source / split, {"a": count, "b": count}, first_seed=1000 * number)
    manifest = prepare(source, tmp_path / "data", blend_size=0.4, test_size=0.5, val_size=0.05)
    assert manifest.settings.source_splits == ("val", "test")
    assert manifest.class_counts().loc["a"].tolist() == [36, 10, 24, 15]
    for image_id, split in splits_of(manifest).items():
        own = image_id.partition("/")[0]
        assert split == {"valid": "val", "test": "test"}.get(own, split)
        assert own != "train" or split in ("train", "blend")


def flawed(tmp_path: Path) -> Path:
    """A folder of 2 x 12 images and one of every flaw."""
    source = image_folder(tmp_path / "flawed", {"a": 12, "b": 12})
    (source / "a" / "empty.jpg").write_bytes(b"")
    (source / "a" / "page.png").write_text("<html>not found</html>")
    half = (source / "b" / "00.jpg").read_bytes()
    (source / "b" / "half.jpg").write_bytes(half[: len(half) // 2])
    shutil.copy(source / "a" / "01.jpg", source / "a" / "zz copy.jpg")
    save(source / "a" / "both.jpg", picture(500))
    shutil.copy(source / "a" / "both.jpg", source / "b" / "both.jpg")
    save(source / "b" / "near one.png", picture(600))
    save(source / "b" / "near two.jpg", picture(600), quality=60)
    save(source / "a" / "twin.png", picture(700))
    save(source / "b" / "twin.jpg", picture(700), quality=60)
    return source


def test_flaws_are_named_and_excluded_and_never_fatal(tmp_path: Path) -> None:
    manifest = prepare(flawed(tmp_path), tmp_path / "data", blend_size=0)
    assert reasons(manifest) == {
        "a/empty.jpg": "unreadable: the file is empty",
        "a/page.png": "unreadable: the file is no image of a known kind",
        "b/half.jpg": reasons(manifest)["b/half.jpg"],
        "a/zz copy.jpg": "duplicate: same content as a/01.jpg",
        "a/both.jpg": "conflict: one content under 'a' and 'b'",
        "b/both.jpg": "conflict: one content under 'a' and 'b'",
    }
    assert "truncated" in reasons(manifest)["b/half.jpg"].lower()
    assert len(manifest.included) == 12 + 12 + 4


def test_near_duplicates_share_their_split_and_two_labels_are_suspected(tmp_path: Path) -> None:
    source = flawed(tmp_path)
    for seed in range(8):
        manifest = prepare(source, tmp_path / "data", blend_size=0, folds=2, seed=seed)
        rows = manifest.included.set_index("image_id")
        for one, other in (("near one.png", "near two.jpg"),):
            first, second = rows.loc[f"b/{one}"], rows.loc[f"b/{other}"]
            assert first["group"] == second["group"]
            assert (first["split"], first["fold"]) == (second["split"], second["fold"])
        assert rows.loc["a/twin.png", "split"] == rows.loc["b/twin.jpg", "split"]
    [note] = [note for note in manifest.settings.notes if "two labels" in note]
    assert "a/twin.png (a) and b/twin.jpg (b)" in note


def test_a_leak_between_the_sources_splits_is_dropped_from_the_train_side(tmp_path: Path) -> None:
    source = tmp_path / "cars"
    image_folder(source / "train", {"a": 12, "b": 12})
    image_folder(source / "test", {"a": 4, "b": 4}, first_seed=100)
    shutil.copy(source / "train" / "a" / "03.jpg", source / "test" / "a" / "same.jpg")
    save(source / "test" / "b" / "near.jpg", picture(12 + 5), quality=50)  # is train/b/05.jpg
    manifest = prepare(source, tmp_path / "data", blend_size=0)
    assert reasons(manifest) == {
        "train/a/03.jpg": "leak: same content as test/a/same.jpg in test",
        "train/b/05.jpg": "leak: near-duplicate of test/b/near.jpg in test",
    }
    assert "2 images leak" in manifest.settings.notes[0]
    assert len(manifest.rows("test")) == 10


def test_classes_too_small_for_the_splits_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "cars", {"Lumen": 2, "Pip": 30, "Lyra": 1})
    with pytest.raises(DataError, match=r"too few .* 'Lumen' \(2\), 'Lyra' \(1\)"):
        prepare(source, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    manifest = prepare(source, tmp_path / "data", val_size=0, blend_size=0, test_size=0)
    assert len(manifest.rows("train")) == 33


def test_a_class_without_a_usable_image_is_named(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "cars", {"Lumen": 8, "Pip": 8})
    (source / "Lyra").mkdir()
    (source / "Lyra" / "broken.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"'Lyra' \(0\)"):
        prepare(source, tmp_path / "data")


def test_images_are_left_out_by_name(folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "out.txt"
    names.write_text("Pip/00.jpg\n\n소나타/03\nnobody.jpg\n", encoding="utf-8")
    manifest = prepare(folder, tmp_path / "data", exclude=names)
    assert reasons(manifest) == {
        "Pip/00.jpg": "left out: named in --exclude",
        "소나타/03.jpg": "left out: named in --exclude",
    }
    assert "1 name of --exclude matches no image: nobody.jpg" in manifest.settings.notes


def test_a_table_of_images_to_leave_out_may_have_other_columns(
    folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "doubtful.csv"
    table.write_text("label,image,why\nPip,Pip/00.jpg,a truck\n소나타,소나타/03.jpg,\n", "utf-8")
    manifest = prepare(folder, tmp_path / "data", exclude=table)
    assert set(reasons(manifest)) == {"Pip/00.jpg", "소나타/03.jpg"}
    table.write_text("what,why\nPip/00.jpg,a truck\n", "utf-8")
    with pytest.raises(DataError, match="hold the id; its columns are what, why; call one 'id'"):
        prepare(folder, tmp_path / "data", exclude=table)


@pytest.mark.parametrize(
    ("name", "text"),
    [("m.yaml", "Compact: [Pip, Jack]\n"), ("m.csv", "Compact,Pip,Jack\n")],
)
def test_classes_are_merged(folder: Path, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    manifest = prepare(folder, tmp_path / "data", merge=tmp_path / name)
    assert manifest.classes == ("Compact", "소나타")
    assert manifest.class_counts().sum(axis=1).tolist() == [90, 60]
    assert Manifest.load(tmp_path / "data").settings.merge == {"Pip": "Compact", "Jack": "Compact"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Pipp,Jack\nJack,Pi\n", "'Pi', which is no class; did you mean 'Pip'"),
        ("x,Pip\ny,Pip\n", "'Pip' into 'x' and 'y'"),
        ("x,Pip\nPip,Jack\n", "'Pip' into 'x', and others into it"),
    ],
)
def test_a_wrong_merge_is_refused(folder: Path, tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DataError, match=why):
        prepare(folder, tmp_path / "data", merge=tmp_path / "m.csv")


def test_one_content_under_two_merged_classes_is_no_conflict(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "cars", {"a": 8, "b": 8, "c": 8})
    shutil.copy(source / "a" / "00.jpg", source / "b" / "zz.jpg")
    (tmp_path / "m.csv").write_text("a,b\n")
    manifest = prepare(source, tmp_path / "data", merge=tmp_path / "m.csv")
    assert reasons(manifest) == {"b/zz.jpg": "duplicate: same content as a/00.jpg"}


def test_stanford_cars_are_cut_to_their_boxes(tmp_path: Path) -> None:
    source = devkit(tmp_path / "stanford")
    manifest = prepare(
        source, tmp_path / "data", crop="box", margin=0.2, val_size=0.3, blend_size=0
    )
    assert manifest.classes == CARS, "the devkit's own order, slashes and all"
    assert (manifest.crop, manifest.margin) == ("box", 0.2)
    assert manifest.class_counts()[["train", "val", "test"]].to_numpy().tolist() == [[1, 1, 1]] * 3
    boxes = manifest.included[["box_x1", "box_y1", "box_x2", "box_y2"]].to_numpy()
    assert (boxes == [10, 5, 70, 50]).all()
    whole = prepare(source, tmp_path / "whole", val_size=0.3, blend_size=0)
    assert whole.hash != manifest.hash


def test_box_without_boxes_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has none"):
        prepare(folder, tmp_path / "data", crop="box")


@pytest.mark.parametrize(
    ("shares", "why"),
    [
        ({"val_size": 1.0}, "--val-size 1 must be"),
        ({"test_size": -0.1}, "--test-size -0.1 must be"),
        ({"val_size": 0.5, "test_size": 0.4, "blend_size": 0.1}, "below 1"),
        ({"folds": 1}, "--folds 1 must be"),
        ({"margin": -1.0}, "--margin -1 must be"),
        ({"store_budget_gib": 0.0}, "--store-budget 0 must be a number above 0"),
    ],
)
def test_shares_that_cannot_be_are_refused(
    folder: Path, tmp_path: Path, shares: dict[str, float], why: str
) -> None:
    with pytest.raises(DataError, match=why):
        prepare(folder, tmp_path / "data", **shares)  # type: ignore[arg-type]


def test_a_data_folder_inside_the_source_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="inside the source"):
        prepare(folder, folder / "data")


def test_one_class_is_no_classification(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 2"):
        prepare(image_folder(tmp_path / "cars", {"a": 8}), tmp_path / "data")


def test_a_summary_counts_everything(tmp_path: Path) -> None:
    summary = summarise(prepare(flawed(tmp_path), tmp_path / "data", blend_size=0))
    assert summary.images == 28
    assert sum(summary.splits.values()) == 28
    assert summary.excluded_by_reason == {"unreadable": 3, "duplicate": 1, "conflict": 2}
    assert summary.near_duplicate_groups == 2
    assert [(one.name, one.total, one.excluded) for one in summary.classes] == [
        ("a", 13, 4),
        ("b", 15, 2),
    ]


def test_a_summary_says_how_large_and_bright_images_are(tmp_path: Path) -> None:
    for number, (size, grey) in enumerate([((80, 40), 0), ((60, 60), 255), ((40, 80), 51)]):
        for name in "ab":
            file = tmp_path / "cars" / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (grey, grey, abs(grey - (name == "a")))).save(file)
    manifest = prepare(tmp_path / "cars", tmp_path / "data", blend_size=0, near_duplicates="off")
    assert summarise(manifest).image_statistics is None, "no image is opened unless asked for"
    found = summarise(manifest, look=True).image_statistics
    assert found is not None
    assert found.width == (40, 60, 80)
    assert found.height == (40, 60, 80)
    assert found.aspect == (0.5, 1, 2)
    assert found.brightness == pytest.approx((0, 0.2, 1), abs=0.01)
    assert found.sample == 6
    assert image_lines(found)[-1].split() == ["brightness", "of", "6", "0.00", "0.20", "1.00"]
    shutil.rmtree(tmp_path / "cars")
    assert image_statistics(manifest).brightness is None


def test_too_few_images_are_said_to_be_left_out_where_they_were(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "cars", {"a": 3, "b": 4})
    shutil.copy(source / "a" / "00.jpg", source / "b" / "copy.jpg")
    why = r"'a' \(2\).*\(left out: 2 conflict; a/00.jpg: conflict: one content under"
    with pytest.raises(DataError, match=why):
        prepare(source, tmp_path / "data", blend_size=0)


def test_leaving_out_every_class_says_that_none_is_left(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "in", {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"no class left: at least 2.*fewer than 3 images"):
        prepare(source, tmp_path / "out", min_images=3)


def test_what_is_said_of_val_is_what_val_holds(tmp_path: Path) -> None:
    made = prepare(image_folder(tmp_path / "in", {"a": 9, "b": 9}), tmp_path / "out", val_size=0.2)
    (note,) = made.settings.notes
    assert f"val holds {len(made.rows('val'))} images, and `carray ensemble` needs 10" in note


def test_all_that_is_wrong_with_a_folder_is_said_in_one_refusal(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "cars", {"a": 6, "b": 6, "one": 1})
    (source / "empty").mkdir()
    save(source / "twin" / "0.jpg", picture(0))  # as a/00.jpg: one content under two labels
    for number in range(3):
        broken = source / "broken" / f"{number}.jpg"
        broken.parent.mkdir(exist_ok=True)
        broken.write_bytes(b"")
    with pytest.raises(DataError) as refused:
        prepare(source, tmp_path / "data")
    said = str(refused.value)
    assert said.startswith("2 things are wrong:")
    assert "the class folder 'empty'" in said
    assert "in 'broken' (0), 'one' (1), 'twin' (0):" in said
    assert "the file is empty" in said
    assert "conflict: one content under 'a' and 'twin'" in said
    for name in ("empty", "one", "twin", "broken"):
        shutil.rmtree(source / name)
    assert prepare(source, tmp_path / "data").classes == ("a", "b")


def test_wrong_options_are_refused_unread_with_what_the_listing_knows(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "cars", {"a": 6, "b": 6, "one": 1})
    (source / "empty").mkdir()
    with pytest.raises(DataError) as refused:
        prepare(source, tmp_path / "data", near_duplicates="no", margin=-1, crop="box", folds=4)
    said = str(refused.value)
    for what in ("--near-duplicates 'no'", "--margin -1", "--crop box", "'empty'", "'one' (1)"):
        assert what in said
    assert "fold 3, val, test: 6 are needed" in said
    assert not (tmp_path / "data").exists()
    with pytest.raises(DataError, match=r"--val-size 2 .*\n.*--folds 1 "):
        prepare(source, tmp_path / "data", val_size=2, folds=1)


def test_all_that_is_wrong_with_a_table_is_said_in_one_refusal(tmp_path: Path) -> None:
    image_folder(tmp_path / "img", {"x": 5})
    table = tmp_path / "t.csv"
    table.write_text("image,kind,split,kind\nx/00.jpg,a,train,a,9\n")
    with pytest.raises(DataError, match=r"several columns 'kind'.*\n.*have 5 cells"):
        prepare(table, tmp_path / "data")
    table.write_text("image,kind,split\nx/00.jpg,a,train\n")
    with pytest.raises(DataError) as refused:
        prepare(
            table, tmp_path / "data", images=tmp_path / "no", id_column="imgae", split_words="3=val"
        )
    for what in ("'imgae'", "say which with --label-column", "--images", "--split-words names 3"):
        assert what in str(refused.value)
    rows = ["x/00.jpg,a,train", "x/01.jpg,a,tarin", "x/02.jpg,b,train", "y.jpg,b,train"]
    table.write_text("\n".join(["image,label,split", *rows]))
    with pytest.raises(DataError) as refused:
        prepare(table, tmp_path / "data", images=tmp_path / "img")
    for what in ("'a' (1), 'b' (1)", "the split 'tarin' is unknown", "no such file"):
        assert what in str(refused.value)
