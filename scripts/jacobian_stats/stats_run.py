"""Statistics of one model at all wanted checkpoints into a folder of files, resumably.

One function is compiled for all checkpoints: weights are set into the same module. A table is computed in blocks of
examples, which are kept until it is whole; what is there already is not computed again.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np

from estimators import examples
from estimators.jacobian import averages, functions, lanczos, measuring, places, tangents
from scripts.jacobian_stats import stats_config, stats_files, stats_published, stats_rows, stats_sources
from zoo import errors

# (stage, done, all).
Progress = Callable[[str, int, int], None]
# A kill costs one block at most.
_BLOCK = 512
_NUM_PROBED = 3


def silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""
    del stage, done, total


class Found(NamedTuple):
    """What there is of one table.

    Attributes:
        path: of the table.
        was_there: whether it was complete before.
        table: what it is of.
        arrays: its columns.
    """

    path: pathlib.Path
    was_there: bool
    table: stats_files.Table
    arrays: Mapping[str, np.ndarray]


class Measurement:
    """One model under one config; its function is compiled once, for whatever shards and checkpoints are asked for."""

    def __init__(
        self, config: stats_config.StatsConfig, source: stats_sources.Source, folder: pathlib.Path | None
    ) -> None:
        """Chooses the examples and adopts the folder; nothing is computed yet.

        Args:
            config: what is wanted; its shard is not looked at.
            source: of which model.
            folder: of the results; None where only `measured` is asked for.

        Raises:
            InvalidValueError: checkpoint, split or strategy is not there for this model.
            MismatchError: the folder holds results of other settings.
        """
        self.config, self.source = config, source
        self.checkpoints = source.chosen_checkpoints(config.checkpoints)
        self._split = source.split(config.dataset_split)
        _check_places(config, self._split)
        if config.units == stats_config.PIXELS and source.mean is None:
            raise errors.InvalidValueError("--units=pixels: this model's inputs are no images of a data set")
        facts = {name: fact for name, fact in source.facts.items() if name != stats_files.OUTCOME}
        self.identity = {"settings": config.identity(), "source": _plain(facts)}
        self._digest = stats_files.digest(self.identity)
        self._measurer: measuring.Measurer | None = None
        self._restored: stats_sources.Checkpoint | None = None
        self.folder = pathlib.Path() if folder is None else folder
        if folder is not None:
            stats_files.adopt(folder, self.identity, config.overwrite)

    def run(self, shard: tuple[int, int], progress: Progress = silent) -> list[Found]:
        """All checkpoints of one shard.

        Raises:
            MismatchError: a table is there of other weights, and `overwrite` is not set.
            EstimatorError: the model cannot be differentiated, or a value is no number.
        """
        positions = dataclasses.replace(self.config, shard=shard).positions(len(self._split.ids))
        total, found = len(self.checkpoints) * len(positions), []
        for number, checkpoint in enumerate(self.checkpoints):
            done = number * len(positions)
            progress("examples", done, total)
            advance = functools.partial(_advance, progress, done, total)
            found.append(self._checkpoint(checkpoint, shard, positions, advance))
        return found

    def _checkpoint(
        self,
        checkpoint: stats_sources.Checkpoint,
        shard: tuple[int, int],
        positions: np.ndarray,
        advance: Callable[[int], None],
    ) -> Found:
        table = self._table(checkpoint, shard, len(positions))
        path = stats_files.table_path(self.folder, table)
        there = self._there(path, table)
        if there is not None:
            arrays = stats_files.read_arrays(path)
            self._write_published(there, arrays, only_missing=True)
            return Found(path, True, there, arrays)
        parts = stats_files.parts_folder(self.folder, table, positions)
        blocks = []
        for start in range(0, len(positions), _BLOCK):
            chosen = positions[start : start + _BLOCK]
            blocks.append(self._block(parts / f"{start}.npz", checkpoint, chosen))
            advance(start + len(chosen))
        table = dataclasses.replace(table, columns=_joined([columns for _, columns in blocks]))
        arrays = self._labels(positions, checkpoint.epoch)
        arrays |= {name: np.concatenate([block[name] for block, _ in blocks]) for name in blocks[0][0]}
        # Those of other weights must not stand beside this table, whether new ones are asked for or not.
        stats_published.remove(self.folder, table)
        stats_files.write_table(path, table, arrays)
        self._write_published(table, arrays, only_missing=False)
        shutil.rmtree(parts, ignore_errors=True)
        return Found(path, False, table, arrays)

    def _there(self, path: pathlib.Path, asked: stats_files.Table) -> stats_files.Table | None:
        """The table of this path, if it is of these weights."""
        if not path.exists():
            return None
        found = stats_files.read_description(path)
        if found.weights == asked.weights and found.identity == asked.identity:
            if found.source == asked.source:
                return found
            # A training has ended since: nothing else of what is known may differ.
            found = dataclasses.replace(found, source=asked.source)
            stats_files.write_table(path, found, stats_files.read_arrays(path))
            return found
        if not self.config.overwrite:
            raise errors.MismatchError(
                f"{path}: is of other weights or settings than those asked for: the model was trained again; pass "
                "--overwrite, or choose another --name or --outdir"
            )
        stats_published.remove(self.folder, found)
        path.unlink()
        return None

    def _table(self, checkpoint: stats_sources.Checkpoint, shard: tuple[int, int], num: int) -> stats_files.Table:
        config, source = self.config, self.source
        return stats_files.Table(
            config.dataset_split,
            checkpoint.epoch,
            checkpoint.step,
            checkpoint.digest,
            shard,
            config.skip,
            config.num_examples,
            num,
            len(self._split.ids),
            self._digest,
            (),
            _plain(source.facts),
            source.group,
            source.seed,
            None if source.home is None else str(source.home),
            config.identity(),
        )

    def _labels(self, positions: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        split = self._split
        return {
            "id": split.ids[positions],
            "label": split.label[positions],
            "clean_label": split.clean_label[positions],
            "epoch": np.full(len(positions), epoch, np.int64),
        }

    def _write_published(
        self, table: stats_files.Table, arrays: Mapping[str, np.ndarray], *, only_missing: bool
    ) -> None:
        paths = [stats_published.path(self.folder, table, column) for column in table.columns]
        if self.config.json and not (only_missing and all(path.exists() for path in paths)):
            stats_published.write(self.folder, table, arrays)

    def _block(
        self, path: pathlib.Path, checkpoint: stats_sources.Checkpoint, positions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], tuple[stats_files.Column, ...]]:
        stored = stats_files.read_part(path, len(positions))
        if stored is not None:
            return stored
        arrays, columns = self.measured(checkpoint, positions)
        stats_files.write_part(path, arrays, columns)
        return arrays, columns

    def measured(
        self, checkpoint: stats_sources.Checkpoint, positions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], tuple[stats_files.Column, ...]]:
        """Columns of examples at these positions of the split, by name, and what they are; no file is written.

        Args:
            checkpoint: whose weights; of any run that the source can restore.
            positions: int64 [n].

        Raises:
            EstimatorError: the model cannot be differentiated, or a value is no number.
        """
        if self._restored != checkpoint:
            self.source.restore(checkpoint)
            self._restored = checkpoint
        data = self._examples(positions)
        if self._measurer is None:  # of weights that are those of a checkpoint: it looks at what comes out
            self._measurer = self._made_measurer(positions)
        found = self._measurer.measure(data)
        return _arrays(found, self.config.target_logit_only, self._unit())

    def _examples(self, positions: np.ndarray) -> examples.Examples:
        split = self._split
        inputs = self._inputs(np.asarray(split.images[positions]))
        return examples.Examples(inputs, split.label[positions], split.ids[positions])

    def _inputs(self, images: np.ndarray) -> np.ndarray:
        """Images as they are differentiated by."""
        inputs = np.asarray(self.source.normalise(images))
        if self.config.units == stats_config.PIXELS:
            assert self.source.deviation is not None
            inputs = (inputs * self.source.deviation + self.source.mean).astype(inputs.dtype)
        return inputs

    def _made_measurer(self, positions: np.ndarray) -> measuring.Measurer:
        config, source = self.config, self.source
        mean, deviation = source.mean, source.deviation
        inputs = np.asarray(source.normalise(np.asarray(self._split.images[positions[:_NUM_PROBED]])))
        function = functions.of(source.model, inputs, predict=source.predict, jit_compile=config.jit_compile or None)
        if config.units == stats_config.PIXELS:
            function = function.of_pixels(mean, deviation)
            mean = deviation = None
        jitter = tangents.Jitter(
            seed=config.mc_sample_seed,
            mean=(0.0,) if mean is None else tuple(map(float, mean)),
            standard_deviation=(1.0,) if deviation is None else tuple(map(float, deviation)),
            pixel_range=source.pixel_range,
        )
        return measuring.Measurer(
            function,
            metrics=config.metrics,
            normalisations=config.normalisations,
            target_logit_only=config.target_logit_only,
            places=self._places(),
            averages=config.averages,
            jitter=jitter,
            method=config.method,
            config=lanczos.Config(tolerance=config.tolerance, stop=config.stop, seed=config.mc_sample_seed),
            num_samples=config.num_signs,
            batch_size=config.batch_size,
            memory_limit_mb=config.memory_limit_mb,
        )

    def _places(self) -> dict[str, places.Place]:
        config, split = self.config, self._split
        # Made when they are drawn: all of the split, whatever of it is measured.
        partners: Any = stats_rows.Rows(split.images, np.arange(len(split.ids)), self._inputs)
        num, seed, radius = config.num_samples, config.mc_sample_seed, config.radius
        make: dict[str, Callable[[], places.Place]] = {
            "shift": lambda: places.Shifts(config.shift_pixels, config.num_directions),
            "svd": lambda: places.SvdWindows(config.svd_sizes, config.num_directions),
            "gaussian": lambda: places.Gaussian(radius, num, seed),
            "ball": lambda: places.Ball(radius, num, seed),
            "sphere": lambda: places.Sphere(radius, num, seed),
            "mixup": lambda: places.MixUp(partners, split.ids, num_samples=num, seed=seed),
        }
        return {name: make[name]() for name in config.strategies if name != "none"}

    def _unit(self) -> str:
        return "pixel in [0, 1]" if self.config.units == stats_config.PIXELS else "input unit"


def _advance(progress: Progress, before: int, total: int, done: int) -> None:
    progress("examples", before + done, total)


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def _check_places(config: stats_config.StatsConfig, split: stats_sources.Split) -> None:
    """Refuses strategies that these images have no room for, before anything is compiled."""
    shape = split.images.shape[1:]
    of_images = [name for name in config.strategies if name in ("shift", "svd")]
    of_images += [name for name in config.metrics if name.startswith("tangent")]
    if of_images and len(shape) != 3:
        raise errors.InvalidValueError(f"{', '.join(of_images)}: are of images [H, W, C], not of inputs {shape}")
    size = min(shape[:2]) if len(shape) == 3 else 0
    if "shift" in config.strategies and not (
        config.shift_pixels[-1] < size and config.num_directions <= 8 * config.shift_pixels[0]
    ):
        raise errors.InvalidValueError(
            f"--shift_pixels={','.join(map(str, config.shift_pixels))} --num_directions={config.num_directions}: "
            f"images of {shape[0]} x {shape[1]} can be shifted by {size - 1} pixels at most, in "
            f"{8 * config.shift_pixels[0]} directions that differ"
        )
    if "svd" in config.strategies and config.svd_sizes[-1] + config.num_directions - 1 > size:
        raise errors.InvalidValueError(
            f"--svd_sizes={','.join(map(str, config.svd_sizes))} --num_directions={config.num_directions}: images of "
            f"{shape[0]} x {shape[1]} have {size} singular values, and the last direction needs "
            f"{config.svd_sizes[-1] + config.num_directions - 1}; name smaller sizes or fewer directions"
        )
    if "mixup" in config.strategies and len(split.ids) < 2:
        raise errors.InvalidValueError("--strategy=mixup: the split has one example, and none to mix it with")


def _joined(blocks: Sequence[tuple[stats_files.Column, ...]]) -> tuple[stats_files.Column, ...]:
    """Columns of all blocks."""
    return tuple(
        dataclasses.replace(same[0], num_unconverged=sum(one.num_unconverged for one in same))
        for same in zip(*blocks, strict=True)
    )


def _arrays(
    found: measuring.Statistics, target_logit_only: bool, unit: str
) -> tuple[dict[str, np.ndarray], tuple[stats_files.Column, ...]]:
    """Columns of numbers by name, and what they are."""
    arrays: dict[str, np.ndarray] = {}
    columns = []
    for column in found.columns:
        names = (column.metric, column.normalisation, column.place, column.average)
        name = stats_files.column_name(*names, target_logit_only)
        parts, details = _numbered(name, column.values), _details(name, column)
        arrays |= parts | details
        columns.append(
            stats_files.Column(
                *names,
                target_logit_only and column.normalisation not in ("", "crossentropy"),
                _unit_of(column.metric, column.normalisation, unit),
                tuple(parts),
                tuple(details),
                column.num_unconverged,
                column.is_estimated,
            )
        )
    return arrays, tuple(columns)


def _numbered(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """[N, ...] as columns: name__0 for the first along a path, name__1_0 in the second direction."""
    if values.ndim == 1:
        return {name: values}
    return {f"{name}__{'_'.join(map(str, at))}": values[(slice(None), *at)] for at in np.ndindex(*values.shape[1:])}


def _details(name: str, column: measuring.Column) -> dict[str, np.ndarray]:
    if column.lengths is not None:
        return _numbered(f"{name}__length", column.lengths)
    if column.standard_errors is not None:
        return {f"{name}__standard_error": column.standard_errors}
    found: averages.Average | None = column.details
    if found is None:
        return {}
    members = {
        "standard_error": found.standard_errors,
        "quadrature_error": found.quadrature_errors,
        "num_paths": found.num_paths,
    }
    return {
        part: array
        for member, values in members.items()
        for part, array in _numbered(f"{name}__{member}", values).items()
    }


def _unit_of(metric: str, normalisation: str, unit: str) -> str:
    """Of a metric's values."""
    if metric in ("crossentropy",):
        return "nats"
    if metric in ("accuracy", "confidence", "stable_rank", "condition_number"):
        return "1"
    of = {"none": "logits", "softmax": "probability", "logsoftmax": "nats", "crossentropy": "nats"}[normalisation]
    if metric == "tangent_jacobian":
        return f"{of} per 0.1"
    return f"{of} per {unit}" + (" per 0.1" if metric == "tangent_hessian" else "")
