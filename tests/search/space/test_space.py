from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
import timm
from hypothesis import given, settings
from hypothesis import strategies as st

from carray.config import TrialConfig
from carray.errors import ConfigError
from carray.metrics import DEFAULT_OBJECTIVE, OBJECTIVES
from carray.models.registry import known_backbones
from carray.search.sampling.samplers import SAMPLERS as BUILT_SAMPLERS
from carray.search.setting_notes import idle_settings
from carray.search.space.distributions import Range
from carray.search.space.loading import find_space, load_space
from carray.search.space.space import BLOCK, SearchSpace
from carray.search.space.validation import check_against_timm, checked
from carray.search.space.yaml_reader import SAMPLERS, parse_space

SPACES = sorted((Path(__file__).parents[3] / "search_spaces").glob("*.yaml"))

SMALL = """\
# Question: does a ViT beat a ResNet?
# Asked at 64 px.
version: 1
metric: val/top1
fixed:
  epochs: 4
  image_size: 64
search:
  optimizer.weight_decay: {loguniform: [1e-3, 1e-1]}
  device_batch_size: {int: [8, 64]}
  augment.mixup: {choice: [0.0, 0.2]}
backbones:
  resnet10t:
    search:
      optimizer.lr: {loguniform: [1e-3, 1e-2]}
  vit:
    fixed: {backbone: test_vit}
    search:
      optimizer.lr: {loguniform: [1e-5, 1e-3]}
      optimizer.layer_decay: {uniform: [0.6, 0.95]}
start:
  - {backbone_block: vit, optimizer.lr: 3e-4, optimizer.layer_decay: 0.75, augment.mixup: 0}
"""


@pytest.fixture
def small() -> SearchSpace:
    return parse_space(SMALL, "small.yaml")


def space_of(**sections: str) -> SearchSpace:
    """A space of a few YAML flow lines, `version` and the first comment given."""
    lines = [f"{key}: {value}" for key, value in {"version": "1", **sections}.items()]
    return parse_space("\n".join(lines), "given.yaml")


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
class TestEveryShippedSpace:
    def test_loads_and_asks_a_question(self, path: Path) -> None:
        assert load_space(path).question.startswith("Question: ")

    def test_samples_resolve_to_configs_of_its_own_backbones(self, path: Path) -> None:
        space = load_space(path)
        drawn = space.sample(100, seed=3)
        assert {space.resolve(params).backbone for params in drawn} <= set(space.backbones())
        has_ranges = any(
            isinstance(d, Range) for _, b in space.branches() for d in b.search.values()
        )
        different = {str(params) for params in drawn}
        assert len(different) == 100 if has_ranges else len(different) > 1

    def test_names_backbones_and_tags_that_timm_has(self, path: Path) -> None:
        for name in load_space(path).backbones():
            known = timm.list_pretrained() if "." in name else known_backbones()
            assert name in known

    def test_is_drawn_from_its_starting_points_first(self, path: Path) -> None:
        space = load_space(path)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        points = space.start_points()
        assert points
        for point in points:
            study.enqueue_trial(point)
        for point in points:
            drawn = space.draw(study.ask())
            assert {name: drawn[name] for name in point} == point

    def test_each_backbone_is_drawn_sooner_or_later(self, path: Path) -> None:
        space = load_space(path)
        drawn = {space.resolve(params).backbone for params in space.sample(200)}
        assert drawn == set(space.backbones())


def test_the_shipped_spaces_are_there() -> None:
    assert {"quick", "backbones"} <= {path.stem for path in SPACES}


def test_backbones_cover_at_least_eight_families() -> None:
    families = {name.split("_")[0] for name in load_space("backbones").backbones()}
    assert len(families - {"tf"}) >= 8


def test_floats_need_no_dot_and_no_stays_text() -> None:
    from carray.yaml_loader import parse

    text = "[3e-4, 1.0e-4, .5, 1e3, 010, 0x1F, 0o17, no, yes, on, true, null, ~, 1:30, 2024-01-01]"
    value = parse(text, "given").value
    assert value == [
        *(3e-4, 1e-4, 0.5, 1000.0, 10, 31, 15),
        *("no", "yes", "on", True, None, None, "1:30", "2024-01-01"),
    ]
    assert [type(item) for item in value[:5]] == [float, float, float, float, int]


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans())
def test_every_number_is_read_as_python_writes_it(number: float) -> None:
    from carray.yaml_loader import parse

    text = str(number).lower() if isinstance(number, bool) else repr(number)
    value = parse(f"a: {text}", "given").value["a"]
    assert value == number
    assert type(value) is type(number)


class TestDrawing:
    def test_a_block_parameter_has_its_blocks_name_in_optuna(self, small: SearchSpace) -> None:
        assert set(small.distributions) == {
            *(BLOCK, "optimizer.weight_decay", "device_batch_size", "augment.mixup"),
            *("resnet10t.optimizer.lr", "vit.optimizer.lr", "vit.optimizer.layer_decay"),
        }

    def test_only_the_drawn_blocks_parameters_are_drawn(self, small: SearchSpace) -> None:
        for params in small.sample(40):
            own = {name for name in params if "." in name and name.split(".")[0] in small.blocks}
            assert {name.split(".")[0] for name in own} == {params[BLOCK]}

    def test_draws_are_what_optuna_stores(self, small: SearchSpace) -> None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        trial = study.ask()
        assert small.draw(trial) == trial.params
        assert trial.distributions.items() <= small.distributions.items()

    def test_tpe_with_groups_can_draw_it(self, small: SearchSpace) -> None:
        from carray.search.sampling.samplers import build_sampler

        study = optuna.create_study(sampler=build_sampler("tpe", 0))
        for _ in range(15):
            trial = study.ask()
            study.tell(trial, small.resolve(small.draw(trial)).optimizer.lr)
        assert len(study.trials) == 15

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 10_000))
    def test_every_seed_draws_configs_inside_the_ranges(self, seed: int) -> None:
        space = parse_space(SMALL, "small.yaml")
        (params,) = space.sample(1, seed)
        config = space.resolve(params)
        assert 8 <= config.device_batch_size <= 64
        assert config.augment.mixup in (0.0, 0.2)
        assert config.image_size == 64

    def test_the_same_seed_draws_the_same(self, small: SearchSpace) -> None:
        assert small.sample(5, seed=7) == small.sample(5, seed=7) != small.sample(5, seed=8)


class TestResolving:
    PARAMS: ClassVar[dict[str, Any]] = {
        BLOCK: "vit",
        "optimizer.weight_decay": 0.01,
        "device_batch_size": 16,
        "augment.mixup": 0.2,
        "vit.optimizer.lr": 3e-4,
        "vit.optimizer.layer_decay": 0.8,
    }

    def test_fixed_drawn_and_block_values_meet_in_one_config(self, small: SearchSpace) -> None:
        config = small.resolve(self.PARAMS)
        assert (config.backbone, config.epochs, config.image_size) == ("test_vit", 4, 64)
        assert (config.optimizer.lr, config.optimizer.layer_decay) == (3e-4, 0.8)
        assert config.augment.mixup == 0.2

    def test_dotted_names_resolve_to_the_same(self, small: SearchSpace) -> None:
        dotted = small.dotted(self.PARAMS)
        assert dotted["optimizer.layer_decay"] == 0.8
        assert small.resolve(dotted) == small.resolve(self.PARAMS)

    def test_a_block_without_a_backbone_is_named_after_it(self, small: SearchSpace) -> None:
        params = {**self.PARAMS, BLOCK: "resnet10t", "resnet10t.optimizer.lr": 2e-3}
        del params["vit.optimizer.lr"], params["vit.optimizer.layer_decay"]
        assert small.resolve(params).backbone == "resnet10t"

    def test_overrides_win(self, small: SearchSpace) -> None:
        config = small.resolve(self.PARAMS, {"epochs": 9, "seed": 5, "optimizer.lr": 1.0})
        assert (config.epochs, config.seed, config.optimizer.lr) == (9, 5, 1.0)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({BLOCK: "swin"}, "backbone_block='swin' must be one of resnet10t, vit"),
            ({"vit.optimizer.l_r": 1.0}, "did you mean 'optimizer.lr'"),
            ({BLOCK: "resnet10t"}, "'vit.optimizer.lr' is not drawn in this space"),
            ({"vit.optimizer.lr": 11.0}, "less than or equal to 10"),
        ],
    )
    def test_wrong_params_are_refused(
        self, small: SearchSpace, change: dict[str, object], says: str
    ) -> None:
        with pytest.raises(ConfigError, match=says):
            small.resolve({**self.PARAMS, **change})

    def test_a_missing_value_is_never_filled_in_silence(self, small: SearchSpace) -> None:
        params = {name: value for name, value in self.PARAMS.items() if name != "augment.mixup"}
        with pytest.raises(ConfigError, match=r"params lack augment\.mixup"):
            small.resolve(params)


class TestWithoutBlocks:
    def test_backbones_may_be_a_plain_choice(self) -> None:
        space = space_of(search="{backbone: {choice: [resnet10t, test_vit]}}")
        assert space.backbones() == ("resnet10t", "test_vit")
        assert set(space.distributions) == {"backbone"}
        assert {space.resolve(p).backbone for p in space.sample(20)} == {"resnet10t", "test_vit"}

    def test_a_block_knows_what_each_of_its_parameters_may_be(self) -> None:
        space = space_of(
            fixed="{epochs: 2}",
            search="{backbone: {choice: [resnet10t, test_vit]}, image_size: {int: [32, 64]}}",
        )
        ((_, block),) = space.branches()
        assert block.values_of("backbone") == ("resnet10t", "test_vit")
        assert block.values_of("image_size") == (32, 64)
        assert block.values_of("epochs") == (2,)
        assert block.values_of("optimizer.lr") == (TrialConfig().optimizer.lr,)

    def test_an_optimizers_own_argument_is_drawn_by_its_name(self) -> None:
        space = space_of(
            fixed="{optimizer.name: lion}",
            search="{optimizer.args.caution: {choice: [true, false]}}",
        )
        drawn = {space.resolve(p).optimizer.args["caution"] for p in space.sample(10)}
        assert drawn == {True, False}

    @pytest.mark.parametrize("name", ["lion", "{choice: [lion, laprop]}"])
    def test_an_argument_that_each_optimizer_takes_may_be_drawn(self, name: str) -> None:
        section = "search" if name.startswith("{") else "fixed"
        drawn = "optimizer.args.caution: {choice: [true, false]}"
        sections = {"fixed": "", "search": f"{drawn}, "}
        sections[section] += f"optimizer.name: {name}"
        check_against_timm(space_of(**{key: f"{{{text}}}" for key, text in sections.items()}))

    @pytest.mark.parametrize(
        ("search", "whose"),
        [
            ("optimizer.args.caution: {choice: [true, false]}", "adamw"),
            (
                "optimizer.args.nesterov: {choice: [true]}, optimizer.name: {choice: [sgd, lion]}",
                "",
            ),
        ],
    )
    def test_one_that_some_optimizer_does_not_take_is_refused(
        self, search: str, whose: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"optimizer.args don't suit {whose}"):
            check_against_timm(space_of(search=f"{{{search}}}"))

    def test_a_space_may_draw_nothing(self) -> None:
        space = space_of(fixed="{epochs: 2}")
        assert space.resolve(space.sample(1)[0]) == TrialConfig(epochs=2)

    def test_the_metric_brings_its_direction(self) -> None:
        assert space_of().direction == "minimize"
        assert space_of(metric="val/top1").direction == "maximize"

    def test_without_one_trials_are_compared_as_ensembles_will_be_calibrated(self) -> None:
        silent = parse_space("version: 1\nfixed: {epochs: 2}\n", "silent.yaml")
        assert (silent.metric, silent.direction) == (DEFAULT_OBJECTIVE, "minimize")
        assert silent.resolve({}) == TrialConfig(epochs=2)
        assert space_of(metric="val/top1").names_metric and not silent.names_metric

    @pytest.mark.parametrize("metric", OBJECTIVES)
    def test_the_metric_keeps_the_epoch_that_it_is_best_in_unless_the_space_says_otherwise(
        self, metric: str
    ) -> None:
        said = space_of(metric=metric, fixed="{epochs: 2}")
        assert said.resolve({}).best_metric == metric
        other = space_of(metric=metric, fixed="{epochs: 2, best_metric: val/top5}")
        assert other.resolve({}).best_metric == "val/top5"


WRONG = {
    "unknown name": (
        {"search": "{optimizer.l_r: {uniform: [0, 1]}}"},
        "line 2: unknown parameter 'optimizer.l_r'; did you mean 'optimizer.lr'?",
    ),
    "a group's name": (
        {"fixed": "{optimizer: adamw}"},
        "unknown parameter 'optimizer'; did you mean 'optimizer.lr' or 'optimizer.name'?",
    ),
    "a range past its end": (
        {"search": "{drop_path: {uniform: [0.0, 1.3]}}"},
        "drop_path: 1.3 breaks a rule: input should be less than 1",
    ),
    "a range before its end": (
        {"search": "{dropout: {uniform: [-0.1, 0.3]}}"},
        "dropout: -0.1 breaks a rule",
    ),
    "a choice that is no value": (
        {"search": "{optimizer.name: {choice: [adamw, adamv]}}"},
        "'adamv' breaks a rule: it is none of timm's optimizers; did you mean 'adam",
    ),
    "an optimizer's own argument without a name": (
        {"search": "{optimizer.args: {uniform: [0, 1]}}"},
        "unknown parameter 'optimizer.args'",
    ),
    "a fixed value": ({"fixed": "{epochs: 0}"}, "epochs: 0 breaks a rule"),
    "a fixed infinity": ({"fixed": "{optimizer.clip_grad_norm: .inf}"}, "finite number"),
    "a float for a whole number": (
        {"search": "{device_batch_size: {uniform: [8, 64]}}"},
        "valid integer",
    ),
    "numbers that are no multiples": (
        {"search": "{head.decoder_width: {int: [8, 64]}}"},
        "multiple of 8",
    ),
    "a number as text": (
        {"search": "{augment.mixup: {choice: ['0.2', 0.4]}}"},
        "augment.mixup: '0.2' is text; write 0.2",
    ),
    "true as a number": ({"fixed": "{optimizer.lr: true}"}, "true is no number: write one"),
    "a yes of YAML 1.1": ({"fixed": "{pretrained: no}"}, "write true or false"),
    "fixed and drawn": (
        {"fixed": "{dropout: 0.1}", "search": "{dropout: {uniform: [0, 0.3]}}"},
        "'dropout' is both fixed and drawn",
    ),
    "shared and in a block": (
        {
            "search": "{dropout: {uniform: [0, 0.3]}}",
            "backbones": "{resnet10t: {search: {dropout: {uniform: [0, 0.1]}}}}",
        },
        "'dropout' is both shared and in backbone 'resnet10t'; to vary it by backbone, move it",
    ),
    "reversed": ({"search": "{dropout: {uniform: [0.3, 0.0]}}"}, "[0.3, 0] is reversed"),
    "a log with 0": ({"search": "{optimizer.lr: {loguniform: [0, 1]}}"}, "must start above 0"),
    "an empty choice": ({"search": "{dropout: {choice: []}}"}, "lists nothing to choose from"),
    "a repeated choice": ({"search": "{dropout: {choice: [0, 0.0]}}"}, "0.0 is listed twice"),
    "an unknown distribution": (
        {"search": "{dropout: {unifrom: [0, 1]}}"},
        "unknown distribution 'unifrom'; did you mean 'uniform'?",
    ),
    "a bare value": ({"search": "{dropout: 0.3}"}, "0.3 is no distribution; write for example"),
    "a loop": ({"fixed": "&all {epochs: *all}"}, "this is no YAML: maximum recursion"),
    "endless digits": ({"fixed": f"{{seed: {'9' * 5000}}}"}, "this is no YAML: Exceeds the limit"),
    "no text at all": ({"fixed": "\0"}, "this is no YAML: unacceptable character"),
    "a start in a list of blocks": (
        {"backbones": "{resnet10t: }", "start": "[{backbone_block: [resnet10t]}]"},
        "there is no backbone block ['resnet10t']",
    ),
    "three ends": ({"search": "{dropout: {uniform: [0, 0.1, 0.2]}}"}, "must be two numbers"),
    "a float int": ({"search": "{epochs: {int: [1, 2.5]}}"}, "must be two whole numbers"),
    "an unknown key": ({"serach": "{}"}, "unknown key 'serach'; did you mean 'search'?"),
    "a key of a block": (
        {"backbones": "{resnet10t: {lr: 1}}"},
        "unknown key 'lr'",
    ),
    "a dotted block": ({"backbones": "{resnet50.a1_in1k: }"}, "must be a text without dots"),
    "a list for a mapping": ({"search": "[1]"}, "search: [1] must be a mapping"),
    "no version": ({"version": "2"}, "version: 2 must be 1"),
    "an unknown metric": ({"metric": "val/top2"}, "'val/top2' is not one of val/log_loss"),
    "a direction the wrong way": (
        {"metric": "val/top1", "direction": "minimize"},
        "direction: val/top1 must be maximized",
    ),
    "an unknown sampler": ({"sampler": "tpee"}, "did you mean 'tpe'"),
    "no grace": ({"grace_epochs": "1.5"}, "grace_epochs: 1.5 must be a whole number from 1"),
    "no trials": ({"trials": "0"}, "trials: 0 must be a whole number from 1"),
    "warm-up past the end": (
        {
            "fixed": "{epochs: 3}",
            "search": "{schedule.warmup_epochs: {choice: [0, 5]}}",
        },
        "line 3: schedule.warmup_epochs=5.0 must be at most epochs=3",
    ),
    "two ranges that can't meet": (
        {"search": "{epochs: {int: [2, 9]}, augment.mix_off_epochs: {int: [0, 3]}}"},
        "augment.mix_off_epochs=3 must be at most epochs=2",
    ),
    "a start outside": (
        {"search": "{dropout: {uniform: [0, 0.3]}}", "start": "[{dropout: 0.5}]"},
        "line 3: start: dropout: 0.5 lies outside uniform [0, 0.3]",
    ),
    "a start of another choice": (
        {"search": "{dropout: {choice: [0, 0.3]}}", "start": "[{dropout: 0.2}]"},
        "start: dropout: 0.2 is not in choice [0, 0.3]",
    ),
    "a start that isn't drawn": (
        {"search": "{dropout: {uniform: [0, 0.3]}}", "start": "[{drop_out: 0.2}]"},
        "'drop_out' is not drawn there; did you mean 'dropout'?",
    ),
    "a start in no block": (
        {"backbones": "{resnet10t: , test_vit: }", "start": "[{backbone_block: testvit}]"},
        "there is no backbone block 'testvit'; did you mean 'test_vit'?",
    ),
    "a refit of its own length": (
        {"refit": "{epochs: 9}"},
        "refit: 'epochs' can't be changed: --refit-epochs says how long refits are",
    ),
    "a refit's unknown name": ({"refit": "{image_sizes: 64}"}, "did you mean 'image_size'"),
    "a refit's value": ({"refit": "{image_size: 2}"}, "refit: image_size: 2 breaks a rule"),
    "a refit's values that don't go together": (
        {"fixed": "{epochs: 3}", "refit": "{schedule.warmup_epochs: 5}"},
        "refit: schedule.warmup_epochs=5.0 must be at most epochs=3",
    ),
    "a list of refits": ({"refit": "[image_size]"}, "refit: ['image_size'] must be a mapping"),
    "a key twice": ({"fixed": "{epochs: 1, epochs: 2}"}, "'epochs' is given twice"),
    "a mapping twice": (
        {"search": "{dropout: {uniform: [0, 0.1]}, dropout: {uniform: [0, 0.2]}}"},
        "'dropout' is given twice",
    ),
    "no YAML": ({"fixed": "{epochs: 1"}, "this is no YAML"),
}


@pytest.mark.parametrize(("sections", "says"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_told_in_one_line(sections: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        space_of(**sections)
    message = str(caught.value)
    assert says in message
    assert message.startswith("given.yaml")
    assert len(message.splitlines()) == 1


def test_all_mistakes_are_told_together_with_their_lines() -> None:
    text = SMALL.replace("epochs: 4", "epoch: 4").replace("[8, 64]", "[64, 8]")
    with pytest.raises(ConfigError) as caught:
        parse_space(text.replace("0.95", "1.95"), "small.yaml")
    assert str(caught.value).splitlines() == [
        "small.yaml has 3 mistakes:",
        "  line 6: unknown parameter 'epoch'; did you mean 'epochs' or 'finetune.epoch'?",
        "  line 10: device_batch_size: int: [64, 8] is reversed or empty; low < high must hold",
        "  line 20: optimizer.layer_decay: 1.95 breaks a rule: "
        "input should be less than or equal to 1",
    ]


def test_a_message_stays_short_however_many_mistakes_there_are() -> None:
    names = ", ".join(f"x{number}: 1" for number in range(50))
    with pytest.raises(ConfigError) as caught:
        space_of(fixed=f"{{{names}}}")
    assert len(str(caught.value).splitlines()) <= 22
    assert "and 30 more" in str(caught.value)


class TestFixing:
    def test_a_fixed_name_is_drawn_no_more(self, small: SearchSpace) -> None:
        fixed = checked(small.with_fixed({"optimizer.lr": 5e-4, "epochs": 9}))
        assert not [name for name in fixed.distributions if name.endswith("optimizer.lr")]
        assert {fixed.resolve(params).optimizer.lr for params in fixed.sample(9)} == {5e-4}
        assert "vit.optimizer.lr" not in fixed.start_points()[0]
        assert fixed.resolve(fixed.sample(1)[0]).epochs == 9
        assert "optimizer.lr" in small.dotted(small.sample(1)[0])

    def test_a_fixed_value_is_checked_with_all_others(self) -> None:
        space = space_of(fixed="{schedule.warmup_epochs: 5}")
        with pytest.raises(ConfigError, match=r"must be at most epochs=2"):
            checked(space.with_fixed({"epochs": 2}))

    def test_an_unknown_name_is_refused(self, small: SearchSpace) -> None:
        with pytest.raises(ConfigError, match="did you mean 'epochs'"):
            checked(small.with_fixed({"epoch": 2}))

    def test_what_is_fixed_is_so_in_refits_too(self) -> None:
        space = space_of(fixed="{image_size: 64}", refit="{image_size: 96, augment.strength: 0.5}")
        assert space.refit_pixels == 2.25
        fixed = space.with_fixed({"image_size": 80})
        assert (fixed.refit, fixed.refit_pixels) == ({"augment.strength": 0.5}, 1.0)


class TestHash:
    def test_comments_starts_and_refits_do_not_count(self, small: SearchSpace) -> None:
        bare = SMALL[: SMALL.index("start:")].replace("# Asked", "# Ask")
        assert parse_space(bare + "refit: {image_size: 96}\n", "other.yaml").hash == small.hash
        assert parse_space(bare, "other.yaml").hash == small.hash

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("0.95", "0.9"),
            ("epochs: 4", "epochs: 5"),
            ("val/top1", "val/top5"),
            ("int:", "choice:"),
        ],
    )
    def test_all_that_decides_a_trial_counts(self, small: SearchSpace, old: str, new: str) -> None:
        assert parse_space(SMALL.replace(old, new), "small.yaml").hash != small.hash


class TestFinding:
    def test_a_shipped_space_is_found_by_name_from_anywhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert find_space("quick").name == "quick.yaml"
        assert find_space("search_spaces/quick.yaml") == find_space("quick")

    def test_the_current_folders_space_comes_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = tmp_path / "search_spaces" / "quick.yaml"
        own.parent.mkdir()
        own.write_text("version: 1")
        monkeypatch.chdir(tmp_path)
        assert find_space("quick") == own

    def test_a_missing_one_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match=r"'search_spaces/quik.yaml'; did you mean 'quick'"):
            load_space("search_spaces/quik.yaml")

    def test_a_folder_elsewhere_is_not_looked_up_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="there is no search space"):
            find_space(tmp_path / "quick.yaml")


def test_the_samplers_a_space_may_name_are_those_that_can_be_built() -> None:
    assert set(SAMPLERS) == set(BUILT_SAMPLERS)


def test_a_setting_is_idle_where_no_block_that_has_it_can_read_it() -> None:
    text = """
version: 1
fixed: {head.hidden: 64, augment.mix_prob: 0.5}
search:
  augment.mixup: {uniform: [0.0, 0.2]}
backbones:
  resnet18: {fixed: {head.kind: linear}}
  resnet34: {fixed: {head.kind: KIND, head.groups: 4}}
"""
    idle = ["head.groups changes nothing: only head.kind ml_decoder reads it"]
    assert idle_settings(parse_space(text.replace("KIND", "mlp"), "s.yaml")) == idle
    hidden = "head.hidden changes nothing: only head.kind mlp reads it"
    assert idle_settings(parse_space(text.replace("KIND", "ml_decoder"), "s.yaml")) == [hidden]
