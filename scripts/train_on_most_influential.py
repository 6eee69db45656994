"""Drops the most influential training examples, or keeps them alone, retrains, and compares with random ones.

    python -m scripts.train_on_most_influential --zoo=/tmp/zoo --ranking=memorization --outdir=/tmp/retrained

reads the recipe of an experiment and a ranking of its training examples:

    --ranking=/tmp/influence                  the folder of compute_influence_functions: mean influence, positive helps
    --ranking=values.npz --column=self_score  an npz file with train_index and a number for each of these examples
    --ranking=memorization                    or consistency_score: of the experiment, where compute_scores has been

and trains, as the recipe says, without the share q of the examples at the top of the ranking (for an influence, the
most helpful), without as many at its bottom (the most harmful), and without as many random ones; --action=keep trains
on these alone. Each is trained under --num_seeds seeds, and so is the whole of the ranked examples. Examples without a
rank are never trained on. The epochs are those of the recipe: fewer examples mean fewer steps. It writes

    /tmp/retrained/results.json                  means with 95 % intervals over seeds, and differences to random
    /tmp/retrained/trainings.parquet             one row for each training
    /tmp/retrained/retraining.png                accuracy and loss on the test set against q
    /tmp/retrained/digits-mlp-retrained/...      an experiment as those of train_runs; zoo_status and others read it

A healthy run shows a progress bar and ends with a table whose lines are such as

    drop                trained on  seeds  accuracy                 minus random
    nothing             1438        5      0.9655 [0.9552, 0.9757]
    top 40 % (575)      863         5      0.9415 [0.9346, 0.9484]  -0.0156 [-0.0236, -0.0076]
    random 40 % (575)   863         5      0.9571 [0.9499, 0.9643]

If dropping the top costs more than dropping random examples, the ranking tells something. A ranking that was made for
some test examples looks better on these than it is on others, so there is a table of both apart; --test_ids names the
former where the ranking does not. The same command again continues after a kill; more --fractions, --which or
--num_seeds add to what is there. Status 1 if a training failed.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from absl import flags
import numpy as np

import heldout
from heldout import subsets
from heldout.experiments import recipes
from heldout.scoring import score_tables
from heldout.training import train_runs_config
from scripts import choices, cli, common_flags, runner_flags, terminal
from scripts.attribution import retraining_figure, retraining_plan, retraining_rankings, retraining_results
from zoo import errors, files, layout, stores

_SHARED_FLAGS = ("zoo", "experiment", "dataset", "data_dir", "device", *runner_flags.NAMES)
CONFIG_NAME = "config.json"

_RANKING = flags.DEFINE_string(
    "ranking",
    None,
    "What to rank by: an npz file, a folder of compute_influence_functions, memorization (of the only ratio, or as in "
    "memorization:0.7) or consistency_score.",
)
_COLUMN = flags.DEFINE_string(
    "column", None, "Member of the npz file to rank by, highest first; without it influence, where positive helps."
)
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the results and of the trained runs.")
_ACTION = flags.DEFINE_enum(
    "action", retraining_plan.DROP, retraining_plan.ACTIONS, "What to do with the selected examples."
)
_WHICH = flags.DEFINE_list(
    "which",
    [retraining_plan.TOP, retraining_plan.BOTTOM],
    "Which examples to select: top (highest values), bottom (lowest) and extreme (largest absolute values), with "
    "commas between. Random ones are always selected, too.",
)
_FRACTIONS = flags.DEFINE_list(
    "fractions", ["0.05", "0.1", "0.2", "0.4"], "Shares q of the ranked examples to select; whole numbers are counts."
)
_NUM_SEEDS = flags.DEFINE_integer(
    "num_seeds", 5, "Trainings of each selection; random ones select others each time.", lower_bound=1
)
_NUM_EPOCHS = flags.DEFINE_integer("num_epochs", None, "Passes over the examples, instead of those of the recipe.")
_TEST_IDS = flags.DEFINE_string(
    "test_ids",
    None,
    "Test examples that the ranking was made for, to be judged apart from the others: 3,17 or 0:100. Without it those "
    "that the ranking names, if it names any.",
)
_FORMAT = flags.DEFINE_enum("format", "parquet", score_tables.TABLE_FORMATS, "Format of the table.")
_WORKERS = flags.DEFINE_integer(
    "workers", None, "Worker processes; without it one for each core on a CPU, else one, or all that a cluster holds."
)
_RUNS_PER_GROUP = flags.DEFINE_string(
    "runs_per_group", "auto", "Runs that a worker trains as one batched computation, or auto; as in train_runs."
)


@dataclasses.dataclass(frozen=True)
class RetrainingConfig:
    """What to compare.

    Attributes:
        zoo: folder of the experiment whose recipe is followed.
        experiment: its name.
        outdir: folder of the results.
        ranking: as --ranking.
        column: as --column.
        action: "drop" or "keep".
        which: selections besides random ones.
        fractions: shares or counts.
        num_seeds: trainings of each selection.
        num_epochs: None for those of the recipe.
        test_ids: None for those that the ranking names.
        table_format: "parquet" or "csv".
    """

    zoo: str
    experiment: str
    outdir: str
    ranking: str
    column: str | None
    action: str
    which: tuple[str, ...]
    fractions: tuple[str, ...]
    num_seeds: int
    num_epochs: int | None
    test_ids: tuple[int, ...] | None
    table_format: str

    @property
    def trained_experiment(self) -> str:
        """Name of the experiment below `outdir`."""
        return f"{self.experiment}-retrained"


def _config() -> RetrainingConfig:
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    outdir = choices.required_path("outdir", _OUTDIR.value)
    if stores.is_store(outdir):
        raise errors.InvalidValueError(f"--outdir={outdir}: expected a folder; copy it when all is trained")
    which = tuple(choices.several_of("which", choices.required_list("which", _WHICH.value), retraining_plan.WHICH))
    if len(set(which)) < len(which):
        raise errors.InvalidValueError(f"--which={','.join(which)}: names a selection twice; name each once")
    ranking = choices.required("ranking", _RANKING.value)
    return RetrainingConfig(
        zoo=zoo,
        experiment=choices.experiment(zoo, common_flags.EXPERIMENT.value),
        outdir=outdir,
        ranking=ranking,
        column=_COLUMN.value,
        action=_ACTION.value,
        which=which,
        fractions=tuple(choices.required_list("fractions", _FRACTIONS.value)),
        num_seeds=_NUM_SEEDS.value,
        num_epochs=_NUM_EPOCHS.value,
        test_ids=None if _TEST_IDS.value is None else choices.run_ids(_TEST_IDS.value, "test_ids"),
        table_format=_FORMAT.value,
    )


def run(argv: Sequence[str]) -> int:
    """Flags -> trainings -> results. Status 1 if a run diverged or is damaged."""
    del argv
    config = _config()
    recipe = recipes.read(config.zoo, config.experiment)
    if recipe is None:
        raise errors.MissingFileError(
            f"{layout.recipe_path(config.zoo, config.experiment)}: no such file, so nothing says how to train; name an "
            "experiment that train_runs has begun"
        )
    if recipe.ranking_sha256 is not None:
        raise errors.InvalidValueError(
            f"--experiment={config.experiment}: was retrained by a ranking itself; name the one that it was made from"
        )
    train_config = _train_config(config, recipe)
    terminal.quiet_tensorflow(train_config.dataset)
    source, test_index = _source(config, train_config)
    plan = retraining_plan.Plan(
        config.action,
        config.which,
        retraining_plan.counts(config.fractions, source.ranking.size),
        config.num_seeds,
        source.ranking.size,
        recipe.dataset["num_train"],
    )
    about = _about(config, recipe, source, test_index)
    _adopt(pathlib.Path(config.outdir), about)
    train_config = dataclasses.replace(train_config, ranking=source.ranking)
    failed = _train(train_config, plan)
    return max(failed, _report(config, source, test_index, about))


def _train_config(config: RetrainingConfig, recipe: recipes.Recipe) -> train_runs_config.TrainRunsConfig:
    """The training of the recipe, without runs and ranking."""
    dataset = choices.dataset(common_flags.DATASET.value)
    dataset = dataset or recipes.default_dataset(config.zoo, config.experiment)
    training = recipe.training
    if config.num_epochs is not None:
        training = dataclasses.replace(training, num_epochs=config.num_epochs)
    return train_runs_config.TrainRunsConfig(
        zoo=config.outdir,
        experiment=config.trained_experiment,
        dataset=choices.required("dataset", dataset),
        data_dir=choices.path(common_flags.DATA_DIR.value),
        architecture=recipe.architecture,
        architecture_options=recipe.architecture_options,
        subset_ratios=(),
        run_ids=(),
        training=training,
        workers=_WORKERS.value,
        runs_per_group=choices.integer_or_auto("runs_per_group", _RUNS_PER_GROUP.value),
        device=common_flags.DEVICE.value,
        noise=recipe.noise,
        subset_sampling=subsets.RANKED,
        margins=True,
        runner=runner_flags.runner(),
    )


def _source(
    config: RetrainingConfig, train_config: train_runs_config.TrainRunsConfig
) -> tuple[retraining_rankings.Source, np.ndarray | None]:
    """The ranking, proved to be of the data set, and the test examples that it was made for."""
    scores = layout.scores_directory(config.zoo, config.experiment)
    source = retraining_rankings.load(config.ranking, config.column, scores)
    dataset = recipes.open_dataset(config.zoo, config.experiment, train_config.dataset, train_config.data_dir)
    recipes.check_dataset(config.zoo, config.experiment, dataset)
    retraining_rankings.check(source, dataset.train.label, len(dataset.test))
    if config.test_ids is None:
        return source, source.test_index
    test_index = np.asarray(config.test_ids, np.int64)
    retraining_rankings.check_test_index("--test_ids", test_index, len(dataset.test))
    return source, test_index


def _about(
    config: RetrainingConfig, recipe: recipes.Recipe, source: retraining_rankings.Source, test_index: np.ndarray | None
) -> dict[str, Any]:
    """What results depend on, besides the recipe of the retrained experiment, which guards itself."""
    digest = None if test_index is None else hashlib.sha256(np.sort(test_index).astype("<i8").tobytes()).hexdigest()
    return {
        "action": config.action,
        "experiment": config.trained_experiment,
        "ranking": source.name,
        "column": source.column,
        "ranking_sha256": source.ranking.sha256(),
        "num_ranked": source.ranking.size,
        "num_left_out": source.num_left_out,
        "num_train": recipe.dataset["num_train"],
        "num_test": recipe.dataset["num_test"],
        "num_target_test": 0 if test_index is None else len(test_index),
        "target_test_sha256": digest,
        "table_format": config.table_format,
    }


def _adopt(outdir: pathlib.Path, about: dict[str, Any]) -> None:
    """Stores what is compared, or holds it against what the folder holds.

    Raises:
        MismatchError: it holds another comparison.
    """
    path, asked = outdir / CONFIG_NAME, {"schema_version": retraining_results.SCHEMA_VERSION, **about}
    stored = files.read_json(path) if path.exists() else asked
    # A file may have been moved; its digest is what counts.
    if {**stored, "ranking": ""} != {**asked, "ranking": ""}:
        raise errors.MismatchError(
            f"{path}: holds another comparison.\nstored:    {json.dumps(stored)}\nasked for: {json.dumps(asked)}\n"
            "Ask for what is stored, or choose another --outdir. To judge the runs that are there on other test "
            "examples, delete that file."
        )
    if not path.exists():
        files.write_json(path, asked)


def _train(config: train_runs_config.TrainRunsConfig, plan: retraining_plan.Plan) -> int:
    """Trains the reference and then all selections; status 1 if something came to nothing."""
    print(
        f"{files.count_text(plan.num_runs, 'run')} in all: {', '.join((*plan.which, retraining_plan.RANDOM))} of "
        f"{plan.pool_size} ranked examples, {plan.action} {', '.join(map(str, plan.counts))}, "
        f"{files.count_text(plan.num_seeds, 'seed')}, and all of them",
        flush=True,
    )
    status = 0
    for ratios, run_ids in (
        ((plan.reference_ratio,), plan.reference_run_ids),
        (tuple(sorted(plan.ratios)), plan.run_ids),
    ):
        summary = terminal.train_runs(dataclasses.replace(config, subset_ratios=ratios, run_ids=run_ids))
        if summary.failed or summary.damaged:
            status = 1
    return status


def _report(
    config: RetrainingConfig, source: retraining_rankings.Source, test_index: np.ndarray | None, about: dict[str, Any]
) -> int:
    outdir = pathlib.Path(config.outdir)
    rows = retraining_results.read_rows(outdir, config.trained_experiment, config.action, source.ranking, test_index)
    if not rows:
        print("no training has been completed, so there are no results")
        return 1
    points = retraining_results.summarise(rows)
    about = about | {"heldout_version": heldout.__version__, "config": dataclasses.asdict(config)}
    retraining_results.write(outdir, rows, points, about, config.table_format)
    picture = retraining_figure.write(outdir, points, config.action)
    if source.num_left_out:
        print(f"{files.count_text(source.num_left_out, 'training example')} without a rank: never trained on")
    parts = retraining_results.known_parts(points)
    for part in parts:
        print(f"\n{retraining_results.TITLES[part]}:\n{retraining_results.text(points, config.action, part)}")
    if "target" in parts:
        print(
            f"\nTo select by {files.count_text(about['num_target_test'], 'test example')} and to judge by them is "
            "optimistic: what holds beyond them is told by the other ones."
        )
    elif about["num_target_test"]:
        print(
            "\nThe ranking was made for all test examples, and judging by them is optimistic; rank by some of them "
            "(--test_ids or --test_sample_num of compute_influence_functions) to have others to judge by."
        )
    print(f"\nresults: {outdir / retraining_results.RESULTS_NAME}\npicture: {picture}")
    return 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
