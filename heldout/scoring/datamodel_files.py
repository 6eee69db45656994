"""The datamodels of one experiment: from its runs to a file, block by block.

    datamodels-<ratio>.npz       the datamodels of the targets, sparse rows; see docs/file_formats.md
    datamodels-<ratio>-blocks/   while they are being fitted: one file for each block of targets

The same command again does nothing if the runs are the same, continues after the last finished block where it was
stopped, and fits anew when runs were added. The bytes of the file depend neither on the number of threads nor on
whether it was stopped. A file holds the datamodels of one configuration: another one is refused, unless it is to
replace them.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import itertools
import json
import pathlib
from typing import Any

import numpy as np

import heldout
from heldout.evaluation import margins
from heldout.experiments import recipes
from heldout.scoring import datamodel_path, datamodels, margin_scores, saved_scores
from zoo import errors, files, layout, npz, run_table, run_table_update

SCHEMA_VERSION = 1
SPLITS = ("train", "test")
OUTPUT_KINDS = ("auto", "margin", "correctness")
# Targets that a kill may lose.
_BLOCK = 16
_PER_TARGET = (
    *("intercept", "penalty", "is_least", "num_runs", "relative_gap", "held_out_r2", "held_out_correlation"),
    *("linear_datamodeling_score", "num_scored_folds"),
)
_SPARSE = ("target_index", "num_clipped", "indptr", "train_index", "weight")
_REPAIR = "; delete it and fit the datamodels again"

# Targets done, targets in all.
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class DatamodelConfig:
    """What to fit and where to.

    Attributes:
        zoo: folder that holds the experiments.
        experiment: name of one.
        subset_ratio: of the runs; None where the experiment has one ratio.
        split: of the targets, "train" or "test".
        targets: first target and one past the last; None for the whole split.
        output_kind: "margin", "correctness", or "auto": margins where all runs of the ratio have them.
        options: of the fits.
        threads: targets fitted at a time.
        memory_limit_mb: MiB for the packed masks and the fits in progress; fewer threads are used where they would
            take more. The run table and the margins come on top.
        output: folder of the file; None for <zoo>/<experiment>/scores.
        overwrite: replace the datamodels of another configuration.
    """

    zoo: str
    experiment: str
    subset_ratio: float | None = None
    split: str = "test"
    targets: tuple[int, int] | None = None
    output_kind: str = "auto"
    options: datamodels.Options = dataclasses.field(default_factory=datamodels.Options)
    threads: int = 1
    memory_limit_mb: int = 2048
    output: str | None = None
    overwrite: bool = False

    @property
    def directory(self) -> pathlib.Path:
        """The folder of the file."""
        return pathlib.Path(self.output) if self.output else layout.scores_directory(self.zoo, self.experiment)


@dataclasses.dataclass(frozen=True)
class SavedDatamodels:
    """The datamodels of J targets, as read back.

    Attributes:
        path: the file.
        provenance: what they were fitted to and how: `experiment`, `subset_ratio`, `split`, `output_kind` ("margin" or
            "correctness"), `table_digest`, `outputs_sha256`, `num_train`, `num_targets`, `config`, `heldout_version`.
        target_index: int64 [J], ascending, original indices in the split.
        models: J Datamodels in the same order.
        num_clipped: int64 [J], margins beyond `margin_scores.DEFAULT_CLIP`, which were clipped; 0 for correctness.
    """

    path: pathlib.Path
    provenance: Mapping[str, Any]
    target_index: np.ndarray
    models: tuple[datamodels.Datamodel, ...]
    num_clipped: np.ndarray


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `fit_datamodels` did.

    Attributes:
        path: the file.
        up_to_date: nothing was to be done.
        num_fitted: targets that were fitted now; the others were there.
        num_runs_without: runs of the ratio that were left out as they have no margins.
    """

    path: pathlib.Path
    up_to_date: bool
    num_fitted: int
    num_runs_without: int


@dataclasses.dataclass(frozen=True)
class _Work:
    """Runs, outputs [T, J] and everything that the results depend on."""

    runs: run_table.RunTable
    outputs: np.ndarray
    num_clipped: np.ndarray
    start: int
    num_runs_without: int
    provenance: Mapping[str, Any]


def file_name(subset_ratio: float) -> str:
    """File name of the datamodels of one ratio."""
    return f"datamodels-{layout.ratio_name(subset_ratio)}.npz"


def fit_datamodels(config: DatamodelConfig, progress: Progress | None = None) -> Summary:
    """Brings the datamodels of an experiment up to date.

    Args:
        config: what to fit.
        progress: called with targets done and targets in all.

    Raises:
        InvalidValueError: a value of the configuration is out of range, or needs more runs or memory than there are; or
            subsets are not random.
        MissingFileError: the experiment has no finished run.
        MismatchError: the file holds the datamodels of another configuration.
    """
    _check(config)
    recipes.check_random_subsets(config.zoo, config.experiment)
    work = _gather(config)
    path = config.directory / file_name(work.provenance["subset_ratio"])
    folder = path.with_suffix("").with_name(f"{path.stem}-blocks")
    _check_stored(path, config, work.provenance)
    num_targets, num_fitted = work.outputs.shape[1], 0
    up_to_date = saved_scores.is_current(path, work.provenance)
    if not up_to_date:
        num_fitted = _fit_blocks(config, work, folder, progress or (lambda done, total: None))
        _join(path, [folder / _block_name(start) for start in range(0, num_targets, _BLOCK)], work)
    _remove_blocks(folder)
    return Summary(path, up_to_date, num_fitted, work.num_runs_without)


def _check(config: DatamodelConfig) -> None:
    datamodels.check(config.options)
    for name, known in (("split", SPLITS), ("output_kind", OUTPUT_KINDS)):
        if getattr(config, name) not in known:
            raise errors.InvalidValueError(f"{name}: got {getattr(config, name)!r}, expected one of {', '.join(known)}")
    for name in ("threads", "memory_limit_mb"):
        if getattr(config, name) < 1:
            raise errors.InvalidValueError(f"{name}: got {getattr(config, name)}, expected at least 1")


def _gather(config: DatamodelConfig) -> _Work:
    """Reads runs and outputs."""
    table, _ = run_table_update.update(config.zoo, config.experiment)
    if config.subset_ratio is None and len(table.subset_ratios) > 1:
        there = ", ".join(layout.ratio_name(ratio) for ratio in table.subset_ratios)
        raise errors.InvalidValueError(f"subset_ratio: {config.experiment} has runs at {there}; name one of them")
    ratio = table.subset_ratios[0] if config.subset_ratio is None else config.subset_ratio
    runs = table.select(ratio)
    size = table.num_train if config.split == "train" else table.num_test
    start, stop = config.targets or (0, size)
    if not 0 <= start < stop <= size:
        raise errors.InvalidValueError(
            f"targets: got {start}:{stop}, expected a range that is not empty within 0:{size}, the {config.split} split"
        )
    kind, rows, outputs = _outputs(config, table, runs, ratio, start, stop)
    # As for means of margins; here squares would let one run with a margin of thousands decide the fit.
    clip = margin_scores.DEFAULT_CLIP
    num_clipped = np.sum(np.abs(outputs) > clip, axis=0)
    outputs = np.clip(outputs, -clip, clip)
    used = runs.take(rows)
    provenance = {
        "experiment": table.experiment,
        "subset_ratio": ratio,
        "split": config.split,
        "output_kind": kind,
        "table_digest": used.digest(),
        "outputs_sha256": hashlib.sha256(np.ascontiguousarray(outputs, "<f8").data).hexdigest(),
        "num_train": table.num_train,
        "num_targets": stop - start,
        "config": _identity(config),
        "heldout_version": heldout.__version__,
    }
    return _Work(used, outputs, num_clipped, start, runs.num_runs - used.num_runs, provenance)


def _identity(config: DatamodelConfig) -> dict[str, Any]:
    """The part of the configuration that results depend on."""
    targets = None if config.targets is None else list(config.targets)
    chosen = {"split": config.split, "targets": targets, "output_kind": config.output_kind}
    return {**chosen, **dataclasses.asdict(config.options)}


def _outputs(
    config: DatamodelConfig, table: run_table.RunTable, runs: run_table.RunTable, ratio: float, start: int, stop: int
) -> tuple[str, np.ndarray, np.ndarray]:
    """Kind of output, the rows of `runs` that have it, and the outputs float64 [T, J] of those."""
    if config.output_kind != "correctness":
        found = margins.collect(config.zoo, config.experiment)[SPLITS.index(config.split)]
        of_ratio = found[table.subset_ratio == ratio, start:stop].astype(np.float64)
        rows = np.flatnonzero(np.all(np.isfinite(of_ratio), axis=1))
        if len(rows) == runs.num_runs or config.output_kind == "margin":
            if not len(rows):
                raise errors.InvalidValueError(
                    f"output_kind: no run of {config.experiment} at ratio {layout.ratio_name(ratio)} has margins; "
                    "train with --margins, or give --output_kind=correctness"
                )
            return "margin", rows, of_ratio[rows]
    right = runs.train_correctness(start, stop) if config.split == "train" else runs.test_correctness(start, stop)
    return "correctness", np.arange(runs.num_runs), right.astype(np.float64)


def _check_stored(path: pathlib.Path, config: DatamodelConfig, provenance: Mapping[str, Any]) -> None:
    """Refuses a file of another configuration; one that is damaged is replaced."""
    try:
        stored = json.loads(str(npz.read(path, [saved_scores.PROVENANCE])[saved_scores.PROVENANCE]))
    except (errors.MissingFileError, errors.DamagedFileError, ValueError):
        return
    there = stored.get("config") if isinstance(stored, dict) else None
    if there == provenance["config"] or config.overwrite:
        return
    raise errors.MismatchError(
        f"{path} holds the datamodels of another configuration.\n"
        f"there: {json.dumps(there, sort_keys=True)}\n"
        f"asked: {json.dumps(provenance['config'], sort_keys=True)}\n"
        "Give another output folder, or --overwrite to replace them."
    )


def _threads(config: DatamodelConfig, work: _Work) -> int:
    """Threads that the memory limit allows.

    Raises:
        InvalidValueError: not even one.
    """
    num_runs, num_train = work.runs.num_runs, work.runs.num_train
    largest = datamodel_path.working_set_limit(num_runs, num_train)
    # Products twice while they grow, predictions of the folds and of the path that is being fitted, vectors over N.
    each = 8 * largest**2 + 16 * config.options.num_lambdas * num_runs + 64 * num_train
    shared = num_runs * num_train // 4 + num_runs * 4096
    limit = config.memory_limit_mb << 20
    if shared + each > limit:
        raise errors.InvalidValueError(
            f"memory_limit_mb: got {config.memory_limit_mb}, datamodels from {num_runs} runs on {num_train} examples "
            f"may take {-(-(shared + each) // (1 << 20))}; allow as much, or use fewer lambdas"
        )
    return min(config.threads, (limit - shared) // each)


def _fit_blocks(config: DatamodelConfig, work: _Work, folder: pathlib.Path, progress: Progress) -> int:
    """Fits the blocks that are not there; returns the number of targets fitted."""
    threads, num_targets = _threads(config, work), work.outputs.shape[1]
    masks = datamodel_path.design(work.runs.subset_mask_bits, work.runs.num_train)
    num_fitted = 0
    for start in range(0, num_targets, _BLOCK):
        stop, path = min(start + _BLOCK, num_targets), folder / _block_name(start)
        progress(start, num_targets)
        if saved_scores.is_current(path, work.provenance):
            continue

        def advance(done: int, start: int = start) -> None:
            progress(start + done, num_targets)

        models = datamodels.fit_all(
            masks, work.outputs[:, start:stop], config.options, threads=threads, progress=advance
        )
        npz.write(path, {**_common(work), **_members(models)})
        num_fitted += len(models)
    progress(num_targets, num_targets)
    return num_fitted


def _block_name(start: int) -> str:
    return f"{start:08d}.npz"


def _common(work: _Work) -> dict[str, np.ndarray]:
    members = saved_scores.common_members(work.provenance, work.runs.train_label, work.runs.test_label)
    return {**members, "schema_version": np.asarray(SCHEMA_VERSION)}


def _members(models: Sequence[datamodels.Datamodel]) -> dict[str, np.ndarray]:
    """Sparse rows: weights of target j are entries indptr[j] to indptr[j + 1] - 1."""
    members = {name: np.asarray([getattr(model, name) for model in models]) for name in _PER_TARGET}
    sizes = [len(model.weight) for model in models]
    members["indptr"] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    for name in ("train_index", "weight"):
        members[name] = np.concatenate([getattr(model, name) for model in models])
    return members


def _join(path: pathlib.Path, blocks: Sequence[pathlib.Path], work: _Work) -> None:
    """Writes the file from all its blocks."""
    models = [model for block in blocks for model in _models(npz.read(block, [*_PER_TARGET, *_SPARSE[2:]]))]
    target_index = work.start + np.arange(len(models), dtype=np.int64)
    own = {"target_index": target_index, "num_clipped": work.num_clipped.astype(np.int64)}
    npz.write(path, {**_common(work), **own, **_members(models)})


def _models(members: Mapping[str, np.ndarray]) -> list[datamodels.Datamodel]:
    ends = members["indptr"].tolist()
    parts = [slice(start, stop) for start, stop in itertools.pairwise(ends)]
    return [
        datamodels.Datamodel(
            train_index=members["train_index"][part],
            weight=members["weight"][part],
            **{name: members[name][j].item() for name in _PER_TARGET},
        )
        for j, part in enumerate(parts)
    ]


def _remove_blocks(folder: pathlib.Path) -> None:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if files.is_temporary(path.name) or path.suffix == ".npz":
            path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def load(path: files.PathLike) -> SavedDatamodels:
    """Reads a file of datamodels.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is unsound, has another schema version, or its arrays do not fit together.
    """
    path = pathlib.Path(path)
    stored = npz.read(path, ["schema_version", saved_scores.PROVENANCE, *_PER_TARGET, *_SPARSE])
    if stored["schema_version"].shape or stored["schema_version"] != SCHEMA_VERSION:
        raise errors.DamagedFileError(
            f"{path}: schema version {stored['schema_version']}, expected {SCHEMA_VERSION}; use the program version "
            "that wrote it, or delete it and fit the datamodels again"
        )
    try:
        provenance = json.loads(str(stored[saved_scores.PROVENANCE]))
        num_train = int(provenance["num_train"])
    except (ValueError, KeyError, TypeError) as error:
        raise errors.DamagedFileError(f"{path}: its provenance is no JSON object with num_train{_REPAIR}") from error
    _check_shapes(path, stored, num_train)
    models = tuple(_models(stored))
    return SavedDatamodels(path, provenance, stored["target_index"], models, stored["num_clipped"])


def _check_shapes(path: pathlib.Path, stored: Mapping[str, np.ndarray], num_train: int) -> None:
    """Refuses arrays that do not fit together."""
    indptr, train_index, weight = (stored[name] for name in _SPARSE[2:])
    num_targets = len(np.atleast_1d(stored["target_index"]))
    per_target = (*_PER_TARGET, *_SPARSE[:2])
    sound = (
        all(stored[name].shape == (num_targets,) and stored[name].dtype.kind in "bif" for name in per_target)
        and all(array.dtype.kind == "i" and array.ndim == 1 for array in (indptr, train_index, stored["target_index"]))
        and indptr.shape == (num_targets + 1,)
        and weight.shape == train_index.shape
        and weight.dtype.kind == "f"
        and indptr[0] == 0
        and indptr[-1] == len(train_index)
        and bool(np.all(np.diff(indptr) >= 0))
        and bool(np.all((train_index >= 0) & (train_index < num_train)))
    )
    if not sound:
        raise errors.DamagedFileError(f"{path}: its arrays do not fit together{_REPAIR}")
