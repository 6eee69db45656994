"""All scores of one experiment, from its run folders to files.

Memorization and subset influence after Feldman & Zhang (2020), consistency after Jiang et al. (2021), each with
counts and standard errors. Into one folder go, per subset ratio, scores-<ratio>.npz, influence-<ratio>.npz and, unless
it is too large, the matrix subset_influence-<ratio>.npy, and once consistency.npz (see
`heldout.scoring.saved_scores`), reliability.json (see `heldout.scoring.reliability_files`), the tables examples and
high_influence_pairs (see `heldout.scoring.score_tables`), the same results in the formats of the papers under
published/ (see `heldout.scoring.published_formats`), and config.json.

The same command again does nothing if the runs are the same, continues where it was stopped, and computes anew when
runs were added. A folder holds the scores of one configuration: another one is refused, unless it is to replace them.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np

import heldout
from heldout.experiments import label_noise, recipes
from heldout.scoring import (
    bootstrap,
    influence_files,
    optional_columns,
    optional_files,
    published_formats,
    reliability_files,
    saved_scores,
    score_config,
    score_labels,
    score_tables,
    scores,
)
from zoo import errors, files, layout, run_scan, run_table

ScoreConfig = score_config.ScoreConfig
SavedScores = saved_scores.SavedScores
RatioScores = saved_scores.RatioScores
load_scores = saved_scores.load

# What is being done, steps done, steps in all.
Progress = Callable[[str, int, int], None]

MEMORIZED_THRESHOLD = 0.25
_PUBLISHED = "published"


@dataclasses.dataclass(frozen=True)
class ScoreSummary:
    """What `compute_scores` did.

    Attributes:
        directory: the folder of the score files.
        up_to_date: nothing was to be done.
        num_runs: runs behind the scores, all ratios together.
        subset_ratios: ascending.
        files: every file of the folder that belongs to the scores, config.json last.
        problems: runs that were left out, with the reason.
        notes: sentences for the user, such as why there are no labels.
    """

    directory: pathlib.Path
    up_to_date: bool
    num_runs: int
    subset_ratios: tuple[float, ...]
    files: tuple[pathlib.Path, ...]
    problems: tuple[run_scan.RunProblem, ...]
    notes: tuple[str, ...] = ()


def compute_scores(config: ScoreConfig, progress: Progress | None = None) -> ScoreSummary:
    """Brings the score files of one experiment up to date.

    Args:
        config: what to compute.
        progress: called with a description, steps done and steps in all.

    Returns:
        A ScoreSummary.

    Raises:
        InvalidValueError: a value of the configuration is out of range, a ratio has no runs, subsets are not random,
            or what was asked for besides cannot be had from these runs (`optional_files.check`).
        MissingFileError: the experiment has no finished run, or the data set is not there.
        MismatchError: the folder holds the scores of another configuration, or of a ratio that has no runs any more;
            or the data set is not the one behind the runs, or contradicts the labels of the run table.
        DamagedFileError: config.json of the folder is unsound.
        DiskSpaceError: the disk has too little room for the influence matrices (`influence_files.check_disk`).

    Cost: T N M / 64 population counts and, where the matrix is kept, 4 N M bytes of disk per ratio.
    """
    report = progress or (lambda what, done, total: None)
    score_config.check(config)
    recipes.check_random_subsets(config.zoo, config.experiment)
    identity = config.identity()
    record = saved_scores.read_record(config.directory)
    _check_record(config, identity, record)
    labelled = score_labels.updated_table(config, functools.partial(report, "reading runs"))
    ratios = _chosen_ratios(config, labelled.table)
    provenance = _provenance(config, identity, labelled.table, ratios)
    names = _file_names(config, ratios, has_labels=provenance["has_labels"], has_matrix=provenance["has_matrix"])
    names += optional_files.names(config, ratios, (labelled.table.num_train, labelled.table.num_test))
    new_record = _record(identity, provenance, names) | optional_files.record_members(config, labelled.table)
    summary = ScoreSummary(
        config.directory,
        up_to_date=record == new_record and all((config.directory / name).is_file() for name in names),
        num_runs=provenance["num_runs"],
        subset_ratios=ratios,
        files=tuple(config.directory / name for name in (*names, saved_scores.CONFIG_NAME)),
        problems=tuple(labelled.problems),
        notes=labelled.notes,
    )
    if not summary.up_to_date:
        score_labels.check_given(config, labelled)
        optional_files.check(config, labelled.table, ratios)
        _make_room(config, labelled.table, ratios, provenance)
        _remove_stale(config, record, names)
        files.write_json(config.directory / saved_scores.CONFIG_NAME, {**new_record, "complete": False})
        _write_files(config, labelled.table, ratios, provenance, report)
        files.write_json(config.directory / saved_scores.CONFIG_NAME, new_record)
    return summary


def _check_record(config: ScoreConfig, identity: Mapping[str, Any], record: Mapping[str, Any] | None) -> None:
    """Refuses a folder that holds the scores of another configuration."""
    if record is None or config.overwrite or record["config"] == identity:
        return
    raise errors.MismatchError(
        f"{config.directory} holds the scores of another configuration.\n"
        f"there: {json.dumps(record['config'], sort_keys=True)}\n"
        f"asked: {json.dumps(identity, sort_keys=True)}\n"
        "Give another output folder, or --overwrite to replace them."
    )


def _chosen_ratios(config: ScoreConfig, table: run_table.RunTable) -> tuple[float, ...]:
    ratios = table.subset_ratios if config.subset_ratios is None else tuple(sorted(config.subset_ratios))
    for ratio in ratios:
        if ratio not in table.subset_ratios:
            there = ", ".join(layout.ratio_name(one) for one in table.subset_ratios)
            raise errors.InvalidValueError(
                f"subset_ratios: {ratio} has no runs in {config.experiment}; there are {there}"
            )
    return ratios


def _provenance(
    config: ScoreConfig, identity: Mapping[str, Any], table: run_table.RunTable, ratios: Sequence[float]
) -> dict[str, Any]:
    return {
        "experiment": table.experiment,
        "table_digest": table.digest(),
        "num_runs": int(np.isin(table.subset_ratio, ratios).sum()),
        "num_train": table.num_train,
        "num_test": table.num_test,
        "subset_ratios": list(ratios),
        "dataset": identity["dataset"],
        "has_labels": score_labels.has_labels(table),
        "has_matrix": config.keeps_matrix(table.num_train, table.num_test),
        "num_draws": config.num_draws,
        "heldout_version": heldout.__version__,
    }


def _file_names(config: ScoreConfig, ratios: Sequence[float], *, has_labels: bool, has_matrix: bool) -> list[str]:
    """Every file of the computation but config.json, relative to the folder."""
    names = [name(ratio) for ratio in ratios for name in (saved_scores.scores_name, saved_scores.influence_name)]
    if has_matrix:
        names += [f"{saved_scores.matrix_name(ratio)}.npy" for ratio in ratios]
    names += [saved_scores.CONSISTENCY_NAME, reliability_files.NAME]
    names += [f"{table}.{config.table_format}" for table in ("examples", "high_influence_pairs")]
    names += [_published_name("high_influence_pairs", ratio) for ratio in ratios]
    if has_labels:
        names += [f"{_PUBLISHED}/cscores.npz"] + [_published_name("class_influence", ratio) for ratio in ratios]
    return names


def _published_name(kind: str, ratio: float) -> str:
    return f"{_PUBLISHED}/{kind}-{layout.ratio_name(ratio)}.npz"


def _record(identity: Mapping[str, Any], provenance: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """config.json of a finished computation. It is written first as well, not complete, so a stopped one is known."""
    return {
        "schema_version": saved_scores.SCHEMA_VERSION,
        "complete": True,
        "config": dict(identity),
        saved_scores.PROVENANCE: dict(provenance),
        "files": list(names),
    }


def _make_room(
    config: ScoreConfig, table: run_table.RunTable, ratios: Sequence[float], provenance: Mapping[str, Any]
) -> None:
    """Refuses to begin without the memory or the disk for the influence matrices."""
    for ratio in ratios:
        influence_files.check_means(config, table.select(ratio))
    _remove_unfinished(config.directory)
    influence_files.remove_leftovers(config.directory, ratios)
    shape = (table.num_train, table.num_test)
    outdated = [ratio for ratio in ratios if not influence_files.is_current(config, ratio, provenance, shape)]
    there = [(config.directory / f"{saved_scores.matrix_name(ratio)}.npy").exists() for ratio in outdated]
    # One that is replaced lies beside its successor while that is written.
    num_matrices = there.count(False) + any(there)
    influence_files.check_disk(config, num_matrices, table.num_train, table.num_test)
    optional_files.check_disk(config, table, ratios, provenance, num_matrices)


def _remove_stale(config: ScoreConfig, record: Mapping[str, Any] | None, names: Sequence[str]) -> None:
    """Deletes files that an earlier computation listed and this one will not write; only if overwriting is allowed."""
    listed = [] if record is None else [name for name in record["files"] if isinstance(name, str)]
    stale = [name for name in listed if name not in names and _is_ours(name) and (config.directory / name).is_file()]
    if stale and not config.overwrite:
        raise errors.MismatchError(
            f"{config.directory} holds {', '.join(stale)}, for which {config.experiment} has no runs or labels any "
            "more. Give another output folder, or --overwrite to remove them."
        )
    for name in (*stale, *optional_files.pictures(stale)):
        (config.directory / name).unlink(missing_ok=True)


def _remove_unfinished(directory: pathlib.Path) -> None:
    """Deletes what a killed computation left: a matrix in the making can be most of a disk."""
    for folder in (directory, directory / _PUBLISHED):
        for path in folder.iterdir() if folder.is_dir() else ():
            if files.is_temporary(path.name):
                path.unlink()


def _is_ours(name: str) -> bool:
    """Whether a listed name can be a file of ours: in the folder or in published/, nowhere else."""
    parts = pathlib.PurePath(name).parts
    return len(parts) == 1 or (len(parts) == 2 and parts[0] == _PUBLISHED)


def _write_files(
    config: ScoreConfig,
    table: run_table.RunTable,
    ratios: Sequence[float],
    provenance: Mapping[str, Any],
    report: Progress,
) -> None:
    path = layout.labels_path(config.zoo, config.experiment)
    clean_label = label_noise.read_clean_label(path, table.train_label)
    common = saved_scores.common_members(provenance, table.train_label, table.test_label, clean_label)
    for ratio in ratios:
        _write_ratio(config, table.select(ratio), ratio, provenance, common, report)
    consistency = scores.consistency(table, ratios)
    saved_scores.write_consistency(config.directory / saved_scores.CONSISTENCY_NAME, consistency, common)
    report("reliability", 0, 1)
    reliability_files.write(config.directory, table, ratios, provenance)
    report("reliability", 1, 1)
    optional_files.write(config, table, ratios, provenance, common, report)
    report("tables", 0, 1)
    loaded = [saved_scores.load_ratio(config.directory, ratio, provenance) for ratio in ratios]
    _write_tables(config, table, loaded, consistency, clean_label)
    report("tables", 1, 1)


def _write_ratio(
    config: ScoreConfig,
    runs: run_table.RunTable,
    ratio: float,
    provenance: Mapping[str, Any],
    common: Mapping[str, np.ndarray],
    report: Progress,
) -> None:
    """Scores and influence matrix of one ratio, each unless it is there from a computation that was stopped."""
    path = config.directory / saved_scores.scores_name(ratio)
    what = f"memorization at ratio {layout.ratio_name(ratio)}"
    if not saved_scores.is_current(path, provenance):
        report(what, 0, 1)
        saved_scores.write_ratio(path, _ratio_members(runs, ratio, config.num_draws), common)
    report(what, 1, 1)
    what = f"subset influence at ratio {layout.ratio_name(ratio)}"
    if not influence_files.is_current(config, ratio, provenance, (runs.num_train, runs.num_test)):
        influence_files.write(config, runs, ratio, provenance, common, functools.partial(report, what))


def _ratio_members(runs: run_table.RunTable, ratio: float, num_draws: int) -> dict[str, Any]:
    """Everything of a RatioScores but the influence."""
    counts = scores.count_sides_of(runs)
    test_right = scores.sum_bit_columns(runs.test_correctness_bits, runs.num_test)
    return {
        "subset_ratio": ratio,
        "num_runs": runs.num_runs,
        "memorization": scores.memorization_from_counts(counts),
        "accuracy_in": counts.accuracy_in,
        "accuracy_heldout": counts.accuracy_heldout,
        "test_accuracy": test_right / runs.num_runs,
        "mean_accuracy_in": float(scores.rate(counts.num_right_in.sum(), counts.num_in.sum())),
        "mean_accuracy_heldout": float(scores.rate(counts.num_right_heldout.sum(), counts.num_heldout.sum())),
        "mean_test_accuracy": float(test_right.sum() / (runs.num_runs * runs.num_test)),
        "memorized": bootstrap.count_above(runs, ratio, MEMORIZED_THRESHOLD, num_draws=num_draws),
    }


def _write_tables(
    config: ScoreConfig,
    table: run_table.RunTable,
    ratios: Sequence[saved_scores.RatioScores],
    consistency: scores.Consistency,
    clean_label: np.ndarray | None,
) -> None:
    """The tables, and the same results in the published formats."""
    labels = (table.train_label, table.test_label)
    pairs = [score_tables.find_pairs(one) for one in ratios]
    suffix, directory = config.table_format, config.directory
    examples = score_tables.example_columns(ratios, consistency, table.train_label, clean_label)
    examples |= optional_columns.columns(config, table, ratios)
    score_tables.write(directory / f"examples.{suffix}", examples, suffix)
    pair_table = score_tables.pair_columns([one.subset_ratio for one in ratios], pairs, *labels)
    score_tables.write(directory / f"high_influence_pairs.{suffix}", pair_table, suffix)
    for ratio, found in zip(ratios, pairs, strict=True):
        published_formats.write_high_influence_pairs(
            directory / _published_name("high_influence_pairs", ratio.subset_ratio),
            published_formats.HighInfluencePairs(
                found.train_index, found.test_index, found.subset_influence, found.memorization
            ),
        )
    if table.train_label is None or table.test_label is None:
        return
    published_formats.write_cscores(
        directory / _PUBLISHED / "cscores.npz", published_formats.CScores(table.train_label, consistency.score)
    )
    for ratio in ratios:
        published_formats.write_class_influence(
            directory / _published_name("class_influence", ratio.subset_ratio),
            influence_files.within_class(table.select(ratio.subset_ratio)),
            ratio.memorization.values,
            table.train_label,
            table.test_label,
        )
