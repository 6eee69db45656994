"""Whether networks are more sensitive to their input at the examples that they memorize: a zoo beside its scores.

    python -m scripts.plot_sensitivity --zoo=demo --experiment=digits-mlp --num_runs=50 --outdir=/tmp/sensitivity

reads runs of one subset ratio with their last checkpoints, and the scores that compute_scores wrote; measures --metric
of the input Jacobian of each run at each training example (or --num_examples of them, drawn by --seed), joins by
original index the means over all runs, over runs that trained on the example and over runs that held it out with
memorization and consistency, and writes into --outdir

    sensitivity.parquet    a row an example: train_index, label, clean_label, means with standard errors over runs,
                           numbers of runs, memorization, consistency
    correlations.json      Spearman's correlations with 95 % bootstrap intervals over examples; where labels were
                           changed on purpose, for clean and changed ones apart as well
    sensitivity.png        the picture

A positive correlation says that networks are steeper at memorized examples. Intervals are over examples, with these
runs. A healthy run prints the correlations. Status 1 if an iteration ended above its tolerance. The same command
continues after a kill, and measures no run twice; more runs can be added.
"""

from collections.abc import Generator, Sequence
import contextlib
import dataclasses
import os
import pathlib
from typing import Any

from absl import flags
import numpy as np

from heldout.datasets import dataset
from heldout.running import dispatch, retries, runners
from heldout.scoring import saved_scores, score_tables
from scripts import choices, cli, common_flags, runner_flags, transfer_bar
from scripts.jacobian_stats import (
    sensitivity,
    sensitivity_figure,
    sensitivity_files,
    stats_config,
    stats_files,
)
from zoo import aux_arrays, errors, files, layout

_SHARED_FLAGS = ("zoo", "experiment", "dataset", "data_dir", "device", *runner_flags.NAMES)
_WORKER = "scripts.jacobian_stats.sensitivity_worker"
_DEFAULTS = stats_config.StatsConfig()
# Those of a single number at an example, which runs are compared by.
_METRICS = tuple(name for name in stats_config.METRICS if name not in ("accuracy", "condition_number"))

_SCORES = flags.DEFINE_string("scores", None, "Folder of the scores; without it that of the experiment.")
_SUBSET_RATIO = flags.DEFINE_float("subset_ratio", None, "Of the runs; may be left out where there is one.")
_RUN_IDS = flags.DEFINE_string("run_ids", None, "Runs like 0:50; without it all.")
_NUM_RUNS = flags.DEFINE_integer("num_runs", None, "Instead: the first so many.")
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", None, "Training examples, drawn by --seed; without it all.")
_METRIC = flags.DEFINE_enum("metric", "jacobian_operator_norm", _METRICS, "What is measured.")
_NORMALIZATION = flags.DEFINE_enum(
    "normalization", "none", stats_config.NORMALISATIONS, "Of what the Jacobian is (none: the logits)."
)
_TARGET_LOGIT_ONLY = flags.DEFINE_bool("target_logit_only", False, "Of the label's entry of that alone.")
_UNITS = flags.DEFINE_enum(
    "units", _DEFAULTS.units, stats_config.UNITS, "Derivatives by inputs as the model takes them, or by [0, 1] pixels."
)
_ARCH = flags.DEFINE_string("arch", None, "Architecture of the runs, where no recipe tells.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Examples that are differentiated at a time.")
_MEMORY_LIMIT_MB = flags.DEFINE_float("memory_limit_mb", _DEFAULTS.memory_limit_mb, "Of Jacobians held at a time.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the drawn examples and of the bootstrap.")
_NUM_DRAWS = flags.DEFINE_integer("num_draws", 1000, "Of the bootstrap.")
_FORMAT = flags.DEFINE_enum("format", "parquet", score_tables.TABLE_FORMATS, "Of the table.")
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the results.")
_WORKERS = flags.DEFINE_integer(
    "workers", None, "Worker processes; without it one, or all that a cluster has room for."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete results of other settings in --outdir.")
_PROGRESS = flags.DEFINE_bool("progress", True, "Show what is done and the time left.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> files. Status 1 if an iteration ended above its tolerance."""
    del argv
    config = _config()
    found = saved_scores.load(config.scores)
    runs = [layout.Run(pathlib.Path(config.zoo), config.experiment, config.subset_ratio, i) for i in config.run_ids]
    aux = [aux_arrays.read(run.aux_arrays_path) for run in runs]
    label = _label(config, found)
    positions = config.positions(len(label))
    outdir = pathlib.Path(config.outdir)
    stats_files.adopt(outdir, sensitivity_files.identity(config), _OVERWRITE.value)
    label_sha256 = dataset.label_sha256(label)
    missing = [one.run_id for one in runs if _stored(config, one, positions, label_sha256) is None]
    if missing:
        _measure(config, missing, label_sha256)
    name, unit, values, num_unconverged = _values(config, runs, positions, label_sha256)
    masks = np.stack([one.subset_mask()[positions] for one in aux])
    joined = sensitivity.join(values, masks, positions, found, config.subset_ratio, label)
    correlations = sensitivity.correlations(joined, config.num_draws, config.seed)
    table = outdir / f"{sensitivity_files.TABLE_NAME}.{_FORMAT.value}"
    score_tables.write(table, joined.columns(), _FORMAT.value)
    title = f"{config.experiment}, ratio {layout.ratio_name(config.subset_ratio)}: {name} of {len(runs)} runs at "
    title += f"{len(positions)} training examples"
    figure = outdir / sensitivity_files.FIGURE_NAME
    sensitivity_figure.write(figure, joined, correlations, title=title, label=f"{name}\n{unit}")
    record = outdir / sensitivity_files.CORRELATIONS_NAME
    _write_record(record, config, name, unit, correlations)
    _report(title, correlations)
    print(f"{table}\n{record}\n{figure}")
    if num_unconverged:
        print(f"{num_unconverged} values ended above the tolerance")
    return 1 if num_unconverged else 0


def _config() -> sensitivity.SensitivityConfig:
    if _WORKERS.value is not None and _WORKERS.value < 1:
        raise errors.InvalidValueError(f"--workers={_WORKERS.value}: must be at least 1")
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    experiment = choices.experiment(zoo, common_flags.EXPERIMENT.value)
    ratio = _ratio(zoo, experiment)
    scores = choices.path(_SCORES.value) or str(layout.scores_directory(zoo, experiment))
    return sensitivity.SensitivityConfig(
        zoo=os.path.abspath(zoo),
        experiment=experiment,
        scores=scores,
        subset_ratio=ratio,
        run_ids=_run_ids(zoo, experiment, ratio),
        outdir=os.path.abspath(choices.required_path("outdir", _OUTDIR.value)),
        stats=stats_config.StatsConfig(
            metrics=(_METRIC.value,),
            normalisations=(_NORMALIZATION.value,),
            target_logit_only=_TARGET_LOGIT_ONLY.value,
            dataset_split="all_train",
            units=_UNITS.value,
            batch_size=_BATCH_SIZE.value,
            memory_limit_mb=_MEMORY_LIMIT_MB.value,
        ),
        num_examples=_NUM_EXAMPLES.value,
        seed=_SEED.value,
        num_draws=_NUM_DRAWS.value,
        dataset=choices.dataset(common_flags.DATASET.value),
        data_dir=choices.path(common_flags.DATA_DIR.value),
        architecture=_ARCH.value,
    )


def _ratio(zoo: str, experiment: str) -> float:
    there = sorted({one.subset_ratio for one in layout.runs(zoo, experiment)})
    asked = _SUBSET_RATIO.value
    if asked is None and len(there) == 1:
        return there[0]
    if asked not in there:
        listed = ", ".join(map(layout.ratio_name, there)) or "none"
        problem = " is required" if asked is None else f"={asked:g}: there are no such runs"
        raise errors.InvalidValueError(f"--subset_ratio{problem}; {experiment} has runs at {listed}")
    return asked


def _run_ids(zoo: str, experiment: str, ratio: float) -> tuple[int, ...]:
    """Of runs that are finished and have a checkpoint."""
    if _RUN_IDS.value is not None and _NUM_RUNS.value is not None:
        raise errors.InvalidValueError("--run_ids beside --num_runs: give one of them")
    runs = {one.run_id: one for one in layout.runs(zoo, experiment, ratio)}
    usable = [i for i, one in runs.items() if one.aux_arrays_path.is_file() and layout.checkpoint_epochs(one)]
    if _RUN_IDS.value is None:
        if _NUM_RUNS.value is not None and not 2 <= _NUM_RUNS.value <= len(usable):
            raise errors.InvalidValueError(
                f"--num_runs={_NUM_RUNS.value}: expected 2 to {len(usable)}, the runs with a checkpoint"
            )
        return tuple(usable[: _NUM_RUNS.value])
    asked = choices.run_ids(_RUN_IDS.value)
    missing = [i for i in asked if i not in usable]
    if missing:
        raise errors.MissingFileError(
            f"--run_ids={_RUN_IDS.value}: run {missing[0]} is not there with its record and a checkpoint; "
            f"{len(usable)} of ratio {layout.ratio_name(ratio)} are"
        )
    return tuple(sorted(asked))


def _label(config: sensitivity.SensitivityConfig, found: saved_scores.SavedScores) -> np.ndarray:
    """Labels that the runs were trained with: those of the scores, which the values of each run are held against."""
    if config.experiment != found.experiment:
        raise errors.MismatchError(
            f"{config.scores}: are scores of {found.experiment}, not of {config.experiment}; name others by --scores"
        )
    if found.train_label is None:
        raise errors.MismatchError(
            f"{config.scores}: know no labels, which prove that examples are the same; compute them with --dataset"
        )
    return found.train_label


def _measure(config: sensitivity.SensitivityConfig, run_ids: Sequence[int], label_sha256: str) -> None:
    """Measures runs, if they were trained with the labels of this digest."""
    num_done = 0
    with _bar() as show, contextlib.closing(_messages(config, run_ids)) as messages:
        for message in messages:
            if message.get("train_label_sha256", label_sha256) != label_sha256:
                raise errors.MismatchError(
                    f"{config.scores}: scores are of other training labels than the runs; compute them again"
                )
            if "note" in message:
                transfer_bar.note(message["note"])
            if "measured" in message:
                num_done += 1
                show("runs", num_done, len(run_ids))


def _messages(config: sensitivity.SensitivityConfig, run_ids: Sequence[int]) -> Generator[dispatch.Message, None, None]:
    runner, device = runner_flags.runner(), common_flags.DEVICE.value
    wanted = _WORKERS.value
    if wanted is None and runner.name == runners.LOCAL:
        wanted = 1
    with runners.opened(runner, device, wanted) as opened:
        num_workers = min(opened.most_workers, len(run_ids))
        setup = {
            "config": config.to_json(),
            "device": device,
            "num_threads": opened.num_threads(num_workers) if device == "cpu" else None,
        }
        tasks = [{"run": run_id} for run_id in run_ids]
        recover = retries.Retries("run", "run")
        yield from opened.run_tasks(_WORKER, setup, tasks, num_workers=num_workers, recover=recover)


def _values(
    config: sensitivity.SensitivityConfig, runs: Sequence[layout.Run], positions: np.ndarray, label_sha256: str
) -> tuple[str, str, np.ndarray, int]:
    """(name, unit, values [T, n], how many ended above the tolerance) of what was measured."""
    rows, num_unconverged = [], 0
    for one in runs:
        stored = _stored(config, one, positions, label_sha256)
        if stored is None:
            path = sensitivity_files.run_path(config, one, positions)
            raise errors.MissingFileError(f"{path}: missing or damaged; the same command measures it again")
        arrays, columns = stored
        rows.append(arrays[columns[0].name])
        num_unconverged += columns[0].num_unconverged
    return columns[0].name, columns[0].unit, np.stack(rows), num_unconverged


def _stored(
    config: sensitivity.SensitivityConfig, run: layout.Run, positions: np.ndarray, label_sha256: str
) -> tuple[dict[str, np.ndarray], tuple[stats_files.Column, ...]] | None:
    return sensitivity_files.read_run(sensitivity_files.run_path(config, run, positions), len(positions), label_sha256)


def _write_record(
    path: pathlib.Path,
    config: sensitivity.SensitivityConfig,
    name: str,
    unit: str,
    correlations: Sequence[sensitivity.Correlation],
) -> None:
    def plain(one: sensitivity.Correlation) -> dict[str, Any]:
        stored = dataclasses.asdict(one)
        return {key: None if isinstance(value, float) and value != value else value for key, value in stored.items()}

    record = {
        "schema_version": stats_files.SCHEMA_VERSION,
        "statistic": name,
        "unit": unit,
        "correlation": "spearman",
        "interval": "95 %, percentile bootstrap over examples",
        "correlations": [plain(one) for one in correlations],
        "config": config.to_json(),
    }
    files.write_json(path, record)


def _report(title: str, correlations: Sequence[sensitivity.Correlation]) -> None:
    print(title)
    for one in correlations:
        print(
            f"  {one.score} and sensitivity of {sensitivity.SIDE_TEXTS[one.side]}, {one.subset} examples "
            f"({one.num_examples}): rank correlation {one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
        )


def _bar() -> contextlib.AbstractContextManager[Any]:
    """Shows (stage, done, all), or nothing."""
    if not _PROGRESS.value:
        return contextlib.nullcontext(lambda stage, done, total: None)
    return transfer_bar.stages(lambda stage: stage, lambda stage: "run")


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
