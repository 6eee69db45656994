r"""Drops the training examples that score highest, or lowest, or random ones, and trains on what is left.

    python -m scripts.summarize_dataset --dataset=digits --classes=3,8 --num_train=60 --num_val=60 \
        --learning_rate=0.05 --num_steps=200 --ratios=0,0.5,0.9 --num_seeds=2 --outdir=/tmp/summary

reads an experiment by the flags of ground_truth_effects, or by --experiment, a folder that it has written, and a score
of each drawn training example: --scores, a file as detect_mislabeled reads it, so of unique information or of
memorization; or, without it, the --measure of the network linearised at its initialisation. The --ways of dropping are

    top, bottom                           the highest scores first, or the lowest
    random                                others under each seed
    iterative_top, iterative_bottom       by the linearised score, of what is left, anew after each --rescore_share

At each of --ratios as many are dropped, and a network is trained on what is left, under --num_seeds initialisations;
many small networks are one batched computation. It writes, under --outdir,

    results.json, trainings.csv, summary.csv    accuracy and loss on validation examples: each training, and means over
                                                seeds with 95 % intervals and differences to random
    summary.png                                 both against the share that is kept
    subsets_<way>.npz                           what is kept at each ratio; train_on_most_influential ranks by it
    seeds/, orders/, kernel/, config.json       networks, orders, and what a killed run goes on from

A healthy run ends with a table whose lines are such as

    dropped   kept  top                      bottom                   random
    50% (30)  30    0.9167 [0.8532, 0.9801]  0.9667 [0.9455, 0.9879]  0.9500 [0.9288, 0.9712]

The same command again continues after a kill, and does nothing when all is there; more --ways, --ratios or --num_seeds
add to it. --print_subset=bottom:0.5 prints what is kept and trains nothing. Where scores are made for the validation
examples, as `predictions` are, judging by them is optimistic: the labels of these do not enter, their images do.
"""

from collections.abc import Sequence
import dataclasses
import re

from absl import flags
import numpy as np

from heldout.datasets import registry
from heldout.running import runners
from heldout.training import leave_out_config, leave_out_data
from scripts import choices, cli, runner_flags, terminal
from scripts.unique_information import (
    changed_labels,
    dropping_orders,
    experiment_flags,
    score_columns,
    scoring_config,
    summary_config,
    summary_figure,
    summary_results,
    summary_run,
    training_flags,
)
from zoo import errors, files, stores

_SHARED_FLAGS = (*experiment_flags.NAMES, "experiment", *training_flags.NAMES, *runner_flags.NAMES)
# Those whose column has the name of the measure.
_MEASURES = ("weights", "weights_langevin", "predictions", "train_prediction_stability", "train_loss_stability")

_SCORES = flags.DEFINE_string("scores", None, "Scores for top and bottom: .npz, .parquet or .csv.")
_COLUMN = flags.DEFINE_string("column", None, "Column of the scores, where there are several.")
_MEASURE = flags.DEFINE_enum("measure", "predictions", _MEASURES, "Linearised score, where no --scores are given.")
_DYNAMICS = flags.DEFINE_enum(
    "dynamics",
    scoring_config.DYNAMICS[0],
    scoring_config.DYNAMICS,
    "Of the linearised network: steps, or gradient flow.",
)
_PROJECTION = flags.DEFINE_enum(
    "projection",
    "none",
    list(scoring_config.PROJECTIONS),
    "How its gradients are projected to features, where the kernel would be too large; as in "
    "compute_unique_information.",
)
_NUM_FEATURES = flags.DEFINE_integer("num_features", 2000, "Features of a projection.")
_WAYS = flags.DEFINE_list("ways", list(dropping_orders.WAYS[:3]), f"Some of {', '.join(dropping_orders.WAYS)}.")
_RATIOS = flags.DEFINE_list(
    "ratios", [f"{ratio:g}" for ratio in np.linspace(0, 0.95, 21)], "Shares of the training examples to drop."
)
_RESCORE_SHARE = flags.DEFINE_float(
    "rescore_share", 0.05, "Share of all examples that is dropped between two scorings."
)
_NUM_SEEDS = flags.DEFINE_integer(
    "num_seeds",
    5,
    "Initialisations, from --seed on; with --init_checkpoint alone all are the same, and only random choices differ.",
    1,
)
_PRINT_SUBSET = flags.DEFINE_string("print_subset", None, "Print positions of what is kept, as in top:0.5, and end.")
_MEMORY_LIMIT_MB = flags.DEFINE_float("memory_limit_mb", 4096.0, "Of the kernel, and of what scores take.")
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the results.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> orders -> trainings -> results."""
    del argv
    outdir = choices.required_path("outdir", _OUTDIR.value)
    if stores.is_store(outdir):
        raise errors.InvalidValueError(f"--outdir={outdir}: expected a folder; copy it when all is trained")
    how = training_flags.how()
    runners.check(how.runner, how.device)
    stored = experiment_flags.of_folder()
    experiment = experiment_flags.config() if stored is None else dataclasses.replace(stored[1], record_steps=())
    terminal.quiet_tensorflow(experiment.dataset)
    data = leave_out_data.of_dataset(experiment, registry.load(experiment.dataset, how.data_dir))
    config, score = _config(dataclasses.replace(experiment, fingerprint=data.fingerprint()), data)
    subset = _subset(_PRINT_SUBSET.value)
    plan = summary_run.Plan(
        outdir=outdir,
        ways=_ways() if subset is None else (subset[0],),
        counts=_counts(subset, len(data.train_index)),
        num_seeds=_NUM_SEEDS.value,
        how=how,
        memory_limit_mb=_MEMORY_LIMIT_MB.value,
    )
    summary_config.adopt(outdir, config)
    by_way = summary_run.orders(config, plan, data.train_index, score, training_flags.line())
    if subset is not None:
        return _print_subset(plan, by_way | summary_run.of_random(plan, data.train_index, config.experiment.seed))
    return _summarise(config, plan, by_way, data.train_index)


def _config(
    experiment: leave_out_config.LeaveOutConfig, data: leave_out_data.LeaveOutData
) -> tuple[summary_config.SummaryConfig, np.ndarray | None]:
    """What decides the results, and scores of the file."""
    scoring = scoring_config.ScoringConfig(measures=(_MEASURE.value,), dynamics=_DYNAMICS.value, num_checked=0)
    linearisation = scoring_config.LinearisationConfig(projection=_PROJECTION.value, num_features=_NUM_FEATURES.value)
    path = choices.path(_SCORES.value)
    if path is None:
        if _COLUMN.value is not None:
            raise errors.InvalidValueError(f"--column={_COLUMN.value}: names a column of --scores, which are not given")
        return summary_config.SummaryConfig(experiment, None, scoring, linearisation, _RESCORE_SHARE.value), None
    found = score_columns.read(path)
    changed_labels.check_order(changed_labels.of_data(data), found)
    value = found.column(_COLUMN.value)
    score = dataclasses.replace(found, columns={"score": value}).at(data.train_index)["score"]
    name = next(name for name, column in found.columns.items() if column is value)
    scores = summary_config.ScoresFile(path, name, summary_config.digest(data.train_index, score))
    return summary_config.SummaryConfig(experiment, scores, scoring, linearisation, _RESCORE_SHARE.value), score


def _ways() -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(choices.several_of("ways", choices.required_list("ways", _WAYS.value), dropping_orders.WAYS))
    )


def _counts(subset: tuple[str, float] | None, num_train: int) -> tuple[int, ...]:
    if subset is not None:
        return dropping_orders.counts([subset[1]], num_train, f"--print_subset={_PRINT_SUBSET.value}")
    # Of few examples several ratios drop as many; that is no mistake of who has not chosen them.
    ratios = _ratios() if _RATIOS.present else dropping_orders.fitting(_ratios(), num_train)
    return dropping_orders.counts(ratios, num_train)


def _ratios() -> list[float]:
    try:
        return [float(text) for text in choices.required_list("ratios", _RATIOS.value)]
    except ValueError as error:
        raise errors.InvalidValueError(
            f"--ratios={','.join(_RATIOS.value)}: expected shares from 0 to below 1, such as 0,0.25,0.5"
        ) from error


def _subset(text: str | None) -> tuple[str, float] | None:
    """A way and a ratio."""
    if text is None:
        return None
    match = re.fullmatch(r"(\w+):([0-9]*\.?[0-9]+)", text)
    if match is None or match[1] not in dropping_orders.WAYS:
        raise errors.InvalidValueError(
            f"--print_subset={text}: expected one of {', '.join(dropping_orders.WAYS)} and a share, as in top:0.5"
        )
    return match[1], float(match[2])


def _print_subset(plan: summary_run.Plan, by_way: dict[str, np.ndarray]) -> int:
    ((order,), (count,)) = by_way.values(), plan.counts
    print(" ".join(map(str, np.sort(order[count:]))))
    return 0


def _summarise(
    config: summary_config.SummaryConfig, plan: summary_run.Plan, by_way: dict[str, np.ndarray], train_index: np.ndarray
) -> int:
    seeds = [config.of_seed(number).seed for number in range(plan.num_seeds)]
    summary_run.write_subsets(plan, by_way, train_index, seeds)
    rows, trained = summary_run.train(config, plan, by_way, train_index)
    points = summary_results.summarise(rows)
    written = summary_results.write(plan.folder, config.to_json(), rows, points)
    scored = f"linearised {config.measure}" if config.scores is None else config.scores.column
    written.append(summary_figure.write(plan.folder, points, f"examples dropped by: {scored}"))
    print(
        f"accuracy on {config.experiment.num_val} validation examples, means over "
        f"{files.count_text(plan.num_seeds, 'seed')}{'' if trained else ' (all trained before)'}:"
    )
    for line in summary_results.lines(points):
        print(line)
    for path in written:
        print(f"written: {path}")
    return 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
