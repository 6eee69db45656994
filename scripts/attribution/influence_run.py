"""Influence functions of a model into a folder of files, resumably; and the same in three lines of Python.

    config = influence_config.InfluenceConfig(outdir="outdir", method="ekfac", damp=1e-3)
    found = influence_run.calculate(config, target, (x_train, y_train), (x_test, y_test))
    influences, harmful, helpful = found

A computation has three parts: `prepare` (the curvature, kept in a file), `compute_block` for blocks of test examples,
which may be done anywhere and in any order, and `finish`. What is there already is not computed again.
"""

from collections.abc import Callable, Mapping
import dataclasses
import datetime
import json
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from estimators import artifacts, examples, influence_functions, score_matrix, solvers, solving, targets
from estimators import errors as estimator_errors
from scripts.attribution import (
    chosen_examples,
    gradient_store,
    influence_config,
    influence_files,
    influence_results,
    model_sources,
)
from zoo import errors, files

# (stage, done, all).
Progress = Callable[[str, int, int], None]
# A computation is kept in so many parts at least, of so many test examples at least: what a kill can cost.
_FEWEST_BLOCKS, _SMALLEST_BLOCK = 16, 64


def silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""
    del stage, done, total


class Influences(NamedTuple):
    """What the PyTorch packages return.

    Attributes:
        influences: by the number of the test example as text, what the JSON file has; see `influence_files.entry`.
        harmful: positions of the training examples, the most harmful first, on average over the test examples.
        helpful: the same, the most helpful first.
    """

    influences: dict[str, dict[str, Any]]
    harmful: list[int]
    helpful: list[int]


class Computation:
    """Influence functions of one model, its curvature being prepared.

    Attributes:
        config: what is wanted.
        model: with its examples.
        test: the chosen test examples.
        identity: what the scores depend on, as JSON.
        functions: the influence functions.
        starts: first position of each block among the chosen test examples.
    """

    def __init__(self, config: influence_config.InfluenceConfig, model: model_sources.Loaded) -> None:
        """Chooses the test examples and adopts the folder; nothing is computed yet.

        Raises:
            InvalidValueError: a test id that is not there, an option that is not known.
            MismatchError: the folder holds results of another config.
        """
        measured = model.target.measured_name
        if config.measured not in ("loss", measured):
            raise errors.InvalidValueError(
                f"measured {config.measured!r}: the target measures {measured!r}; give targets.of(..., "
                f"measured={config.measured!r})"
            )
        self.config, self.model = config, model
        self.test = model.test.take(chosen_examples.positions(config, model.test))
        settings = solvers.find(config.method, solver_options(config))
        self.functions = influence_functions.InfluenceFunctions(
            model.target, settings, batch_size=config.batch_size, memory_limit_mb=config.memory_limit_mb
        )
        origin = artifacts.origin(model.target, model.train, {})
        predictions = origin.pop("predictions")
        self.identity = _identity(config, model, self.test, settings, origin)
        self.store = gradient_store.find(config, model, len(self.test), self.identity, predictions)
        complete = influence_files.adopt(config, self.identity, predictions)
        size = min(self.functions.blocks.test, max(_SMALLEST_BLOCK, -(-len(self.test) // _FEWEST_BLOCKS)))
        self.starts = tuple(range(0, len(self.test), size))
        self._prepared = False
        if self.store is not None:
            self.store.make()
        self.up_to_date = complete and (self.store is None or self.store.is_complete(self.starts))

    @property
    def _folder(self) -> pathlib.Path:
        return self.config.directory

    def prepare(self, progress: Progress = silent) -> None:
        """The curvature, from its file if it is there, else over the training examples and into the file; once."""
        if self._prepared:
            return
        folder = self._folder / influence_config.FACTORS_NAME
        progress("curvature", 0, 1)
        try:
            self.functions.restore(folder, self.model.train)
        except (estimator_errors.DamagedArtifactError, estimator_errors.MismatchError):  # none, or of something else
            self.functions.fit(self.model.train)
            self.functions.save(folder, overwrite=True)
        progress("curvature", 1, 1)
        if self.store is not None:
            self.store.prepare(self.functions.fitted(), lambda done, total: progress("gradients", done, total))
        self._prepared = True

    def compute_block(self, start: int, progress: Progress = silent) -> int:
        """Computes one block, unless it is there; returns how many test examples it has."""
        block = self.test.take(self._columns(start))
        if self.has_matrix:
            if self.store is not None:
                self.store.solutions(self.functions.fitted(), block, start, self._of)
            return len(block)
        path, shape = self._block_path(start), (len(self.model.train), len(block))
        if influence_files.read_block(path, shape) is not None:
            return len(block)
        before = time.monotonic()

        def advance(done: int, total: int) -> None:
            progress("scores", start * total + len(block) * done, len(self.test) * total)

        values, residuals, converged = self._scores(block, start, advance)
        seconds = time.monotonic() - before
        influence_files.write_block(path, influence_files.Block(values, residuals, converged, seconds))
        self._note(f"test examples {block.ids[0]} to {block.ids[-1]}: {len(block)} in {seconds:.3g} s")
        return len(block)

    def _scores(
        self, block: examples.Examples, start: int, advance: Callable[[int, int], None]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.store is not None:
            solved, residuals, converged = self.store.solutions(self.functions.fitted(), block, start, self._of)
            return self.store.products(self.functions.fitted(), solved, advance), residuals, converged
        found = self.functions.scores(self.model.train, block, of=self._of, progress=advance)
        assert found.residuals is not None
        assert found.converged is not None
        return found.values, found.residuals, found.converged

    def _note(self, text: str) -> None:
        """A line for the log file, if there is one."""
        if self.config.log_filename is not None:
            with open(self.config.log_filename, "a", encoding="utf-8") as file:
                file.write(f"{datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')} {text}\n")

    def _columns(self, start: int) -> slice:
        size = self.starts[1] if len(self.starts) > 1 else len(self.test)
        return slice(start, min(start + size, len(self.test)))

    @property
    def _of(self) -> str:
        return "loss" if self.config.measured == "loss" else "measured"

    def finish(self, progress: Progress = silent) -> score_matrix.ScoreMatrix:
        """Joins the blocks, unless the matrix is there, and writes all files, the meta file last.

        Raises:
            MissingFileError: a block is not there, or is damaged.
        """
        if not self.has_matrix:
            self._join(progress)
        matrix = artifacts.load_scores(self._folder / influence_config.SCORES_NAME)
        influence_results.write(self.config, self.identity, self.model, self.test, matrix, self._seconds())
        influence_files.remove_blocks(self._folder)
        return matrix

    @property
    def has_matrix(self) -> bool:
        """Whether the matrix is complete, so that blocks are of no more use."""
        return influence_files.has_matrix(self._folder, self.identity)

    def _block_path(self, start: int) -> pathlib.Path:
        return influence_files.block_path(self._folder, self.identity, start)

    def _join(self, progress: Progress) -> None:
        folder, num_train = self._folder / influence_config.SCORES_NAME, len(self.model.train)
        residuals, converged = np.empty(len(self.test)), np.empty(len(self.test), bool)
        seconds, dtype = np.empty(len(self.test)), self.model.target.dtype.as_numpy_dtype
        with artifacts.drafting_scores(folder, num_train, len(self.test), dtype, overwrite=True) as draft:
            for number, start in enumerate(self.starts):
                columns = self._columns(start)
                block = self._block(start, columns)
                draft.values[:, columns] = block.values
                residuals[columns], converged[columns] = block.residuals, block.converged
                seconds[columns] = block.seconds / (columns.stop - columns.start)
                progress("files", number, len(self.starts))
            influence_files.write_seconds(self._folder, seconds)
            found = self.functions.labelled(draft.values, self.model.train, self.test, self._of, residuals, converged)
            computation = {"computation": influence_files.digest(self.identity)}
            draft.finish(dataclasses.replace(found, config={**found.config, **computation}))

    def _seconds(self) -> np.ndarray:
        """[num_test], what each test example took; NaN where that is not known any more."""
        found = influence_files.read_seconds(self._folder)
        return found if found is not None and len(found) == len(self.test) else np.full(len(self.test), np.nan)

    def _block(self, start: int, columns: slice) -> influence_files.Block:
        shape = (len(self.model.train), columns.stop - columns.start)
        path = self._block_path(start)
        block = influence_files.read_block(path, shape)
        if block is None:
            path.unlink(missing_ok=True)
            raise errors.MissingFileError(f"{path}: missing or damaged; the same command computes it again")
        return block


def solver_options(config: influence_config.InfluenceConfig) -> dict[str, Any]:
    """Options of the solver: those of the config under the names of the method, then `options`.

    Raises:
        InvalidValueError: `options` says again what has a name of its own, or is of another method.
    """
    taken = {field.name: field.default for field in dataclasses.fields(solvers.SOLVERS[config.method])}  # type: ignore[arg-type]
    own: dict[str, Any] = {"damp" if "damp" in taken else "damping": config.damp, "seed": config.seed}
    if config.method == "lissa":
        own |= {"recursion_depth": config.recursion_depth, "r": config.r, "scale": config.scale}
        own |= {"published": config.compat == "published", "tolerance": config.tolerance}
    own = {name: value for name, value in own.items() if name in taken}
    wrong = sorted(name for name in config.options if name in own or name not in taken)
    if wrong:
        free = ", ".join(name for name in taken if name not in own) or "none"
        raise errors.InvalidValueError(
            f"options {wrong} of {config.method}: expected some of {free}; damping and seed have names of their own"
        )
    for name, value in config.options.items():
        kind = type(taken[name])
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise errors.InvalidValueError(f"options {name}={value!r}: expected a value of type {kind.__name__}")
    return own | dict(config.options)


def _identity(
    config: influence_config.InfluenceConfig,
    model: model_sources.Loaded,
    test: examples.Examples,
    settings: solving.Settings,
    origin: Mapping[str, Any],
) -> dict[str, Any]:
    """What the scores depend on, as JSON gives it back."""
    found: dict[str, Any] = {
        "solver": solvers.as_config(settings),
        "measured": config.measured,
        "model": dict(model.description),
        "target": dict(origin),
        "test_ids": f"{len(test)} from {test.ids[0]} to {test.ids[-1]}" if len(test) > 50 else test.ids.tolist(),
        "test_examples": test.fingerprint(),
    }
    return dict(json.loads(json.dumps(found)))


def calculate(
    config: influence_config.InfluenceConfig,
    target: targets.Target,
    train: Any,
    test: Any,
    progress: Progress = silent,
) -> Influences:
    """Influence of training examples on test examples, into `config.outdir` and as Python objects.

    Args:
        config: what is wanted.
        target: what is differentiated; its measured output must be `config.measured`, unless that is "loss".
        train: the training examples, `examples.Examples` or (inputs, labels).
        test: test examples to choose from, by class or by id.
        progress: called with (stage, done, all).

    Returns:
        The influences; all of those of the chosen test examples are held in memory.

    Raises:
        InvalidValueError, MismatchError: see `Computation`.
        EstimatorError: the model or the solver fails.
    """
    num_gpus = len(tf.config.list_logical_devices("GPU"))
    if config.gpu >= num_gpus:
        raise errors.InvalidValueError(f"gpu {config.gpu}: TensorFlow sees {num_gpus}; give -1 to compute on the CPU")
    model = model_sources.Loaded(target, examples.of(train), examples.of(test), {"model": "python"}, None)
    with tf.device("/CPU:0" if config.gpu < 0 else f"/GPU:{config.gpu}"):
        computation = Computation(config, model)
        matrix = run(computation, progress)
    _, meta_name = influence_files.names(config, matrix.num_test)
    seconds = np.array(files.read_json(config.directory / meta_name)["time_calc_influence_s"], np.float64)
    average = influence_results.average_influence(matrix)
    return Influences(
        dict(influence_results.entries(matrix, computation.test.labels, seconds)),
        np.argsort(average, kind="stable").tolist(),
        np.argsort(-average, kind="stable").tolist(),
    )


def run(computation: Computation, progress: Progress = silent) -> score_matrix.ScoreMatrix:
    """All of a computation that is not there yet, in this process."""
    if computation.up_to_date:
        return artifacts.load_scores(computation.config.directory / influence_config.SCORES_NAME)
    computation.prepare(progress)
    is_left = not computation.has_matrix or computation.store is not None
    for start in computation.starts if is_left else ():
        computation.compute_block(start, progress)
    return computation.finish(progress)
