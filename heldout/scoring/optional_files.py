"""Files beside the scores that are computed where asked for.

--cross_class        cross_class-<ratio>.npz, and one table cross_class of all ratios (class_means.py)
--margin_influence   margin_influence-<ratio>.npz, and .npy where matrices are kept (margin_influence_files.py)

Margins are no part of the run table, whose digest the scores go by, so results from them also go by the records that
the margins are read from.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
import hashlib
import shutil

import numpy as np

from heldout.evaluation import margins
from heldout.scoring import class_means, margin_influence_files, score_config, score_tables
from zoo import aux_arrays, errors, files, layout, run_table

# What is being done, steps done, steps in all.
Progress = Callable[[str, int, int], None]

MARGIN_SOURCES = "margin_sources"


def cross_class_table(config: score_config.ScoreConfig) -> str:
    """File name of the table of class means."""
    return f"cross_class.{config.table_format}"


def names(config: score_config.ScoreConfig, ratios: Sequence[float], shape: tuple[int, int]) -> list[str]:
    """The files that were asked for, relative to the folder."""
    found = []
    if config.cross_class:
        found += [*(class_means.file_name(ratio) for ratio in ratios), cross_class_table(config)]
    if config.margin_influence:
        found += [name for ratio in ratios for name in margin_influence_files.file_names(config, ratio, shape)]
    return found


def pictures(files_: Sequence[str]) -> list[str]:
    """The pictures that `compute_scores` draws of some of these files, beside them."""
    prefix = class_means.file_name(0.5).partition("-")[0]
    return [name.replace(".npz", ".png") for name in files_ if name.startswith(f"{prefix}-")]


def margin_sources(config: score_config.ScoreConfig, table: run_table.RunTable) -> str | None:
    """Which records the margins of a computation come from, as a hexadecimal digest; None where none are asked for."""
    if not (config.margins or config.margin_influence):
        return None
    there = {(run.subset_ratio, run.run_id) for run in _records(config)}
    digest = hashlib.sha256()
    for ratio, run_id, source in zip(table.subset_ratio, table.run_id, table.source_sha256, strict=True):
        digest.update(f"{ratio} {run_id} {(float(ratio), int(run_id)) in there} ".encode())
        digest.update(source.tobytes())
    return digest.hexdigest()


def _records(config: score_config.ScoreConfig) -> Iterator[layout.Run]:
    """Runs whose own record is there."""
    return (run for run in layout.runs(config.zoo, config.experiment) if run.aux_arrays_path.exists())


def check(config: score_config.ScoreConfig, table: run_table.RunTable, ratios: Sequence[float]) -> None:
    """Refuses what cannot be computed from these runs, before anything is.

    Raises:
        InvalidValueError: classes are asked for, and there are no labels; margins are, and a ratio has no run with
            margins; or the memory limit is too small. The message names the flag and the repair.
        DamagedFileError: the record of a run is unsound.
    """
    if config.cross_class:
        class_means.check_labels(table)
    for flag in ("margins", "margin_influence"):
        if getattr(config, flag):
            _check_margins(config, flag, ratios)
    if config.margin_influence:
        for ratio in ratios:
            margin_influence_files.check_means(config, table.select(ratio))


def _check_margins(config: score_config.ScoreConfig, flag: str, ratios: Sequence[float]) -> None:
    missing = set(ratios)
    for run in _records(config):
        if run.subset_ratio in missing and aux_arrays.read(run.aux_arrays_path).margins is not None:
            missing.remove(run.subset_ratio)
        if not missing:
            return
    names_ = ", ".join(layout.ratio_name(ratio) for ratio in sorted(missing))
    raise errors.InvalidValueError(
        f"--{flag}: no run of {config.experiment} at ratio {names_} has margins; train_runs --margins keeps them, or "
        "leave the flag out"
    )


def check_disk(
    config: score_config.ScoreConfig,
    table: run_table.RunTable,
    ratios: Sequence[float],
    provenance: Mapping[str, object],
    num_others: int,
) -> None:
    """Refuses to begin where the matrices of influence on margins will not fit, and deletes what killed computations
    of other ratios left of them.

    Args:
        config: what to compute.
        table: of the runs.
        ratios: to compute.
        provenance: of the computation.
        num_others: matrices of the same size that will be written besides.

    Raises:
        DiskSpaceError: the file system of the folder has less room.
    """
    _remove_leftovers(config, ratios if config.margin_influence else ())
    if not config.margin_influence or not config.keeps_matrix(table.num_train, table.num_test):
        return
    sources = margin_sources(config, table) or ""
    outdated = [
        ratio
        for ratio in ratios
        if not margin_influence_files.is_current(config, table.select(ratio), ratio, provenance, sources)
    ]
    if outdated:
        what = f"the matrices of influence on margins, {table.num_train} by {table.num_test},"
        size = 4 * (len(outdated) + num_others) * table.num_train * table.num_test
        files.check_room(config.directory, size, what, ", or keep no matrix with --matrix=no")


def _remove_leftovers(config: score_config.ScoreConfig, ratios: Sequence[float]) -> None:
    ours = {f".{margin_influence_files.matrix_name(ratio)}" for ratio in ratios}
    for path in config.directory.glob(".margin_influence-*"):
        for suffix in (".parts", ".npy.part"):
            if path.name.endswith(suffix) and path.name.removesuffix(suffix) not in ours:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write(
    config: score_config.ScoreConfig,
    table: run_table.RunTable,
    ratios: Sequence[float],
    provenance: Mapping[str, object],
    common: Mapping[str, np.ndarray],
    report: Progress,
) -> None:
    """Brings the files that were asked for up to date.

    Args:
        config: what to compute.
        table: of the runs.
        ratios: which.
        provenance: of the computation.
        common: members that every npz file of it has.
        report: called with a description, steps done and steps in all.
    """
    if config.cross_class:
        _write_cross_class(config, table, ratios, common, report)
    if config.margin_influence:
        _write_margin_influence(config, table, ratios, provenance, common, report)


def _write_cross_class(
    config: score_config.ScoreConfig,
    table: run_table.RunTable,
    ratios: Sequence[float],
    common: Mapping[str, np.ndarray],
    report: Progress,
) -> None:
    parts = []
    for done, ratio in enumerate(ratios):
        report("influence between classes", done, len(ratios))
        means = class_means.of_runs(table.select(ratio))
        class_means.write(config.directory / class_means.file_name(ratio), means, ratio, common)
        parts.append(class_means.columns(ratio, means))
    columns: dict[str, np.ndarray | None] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    score_tables.write(config.directory / cross_class_table(config), columns, config.table_format)
    report("influence between classes", len(ratios), len(ratios))


def _write_margin_influence(
    config: score_config.ScoreConfig,
    table: run_table.RunTable,
    ratios: Sequence[float],
    provenance: Mapping[str, object],
    common: Mapping[str, np.ndarray],
    report: Progress,
) -> None:
    sources = margin_sources(config, table) or ""
    test_margin: np.ndarray | None = None
    for ratio in ratios:
        if margin_influence_files.is_current(config, table.select(ratio), ratio, provenance, sources):
            continue
        what = f"influence on margins at ratio {layout.ratio_name(ratio)}"
        report(what, 0, table.num_train)
        if test_margin is None:
            test_margin = margins.collect(config.zoo, config.experiment)[1]
        margin_influence_files.write(
            config, table, ratio, test_margin, sources, provenance, common, functools.partial(report, what)
        )


def record_members(config: score_config.ScoreConfig, table: run_table.RunTable) -> dict[str, str]:
    """What config.json records besides of the margins that results were computed from."""
    sources = margin_sources(config, table)
    return {} if sources is None else {MARGIN_SOURCES: sources}
