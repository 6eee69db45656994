"""What `compute_jacobian_stats` is told; needs no TensorFlow."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import re
from typing import Any

import numpy as np

from zoo import errors

# As in `estimators.jacobian`, which takes TensorFlow along; a test holds them together.
METRICS = (
    "jacobian",
    "jacobian_operator_norm",
    "nuclear_norm",
    "stable_rank",
    "condition_number",
    "crossentropy",
    "accuracy",
    "confidence",
    "tangent_jacobian",
    "tangent_hessian",
)
NORMALISATIONS = ("none", "softmax", "logsoftmax", "crossentropy")
STRATEGIES = ("none", "shift", "svd", "gaussian", "ball", "sphere", "mixup")
AVERAGES = ("euclidean", "path", "cumulative", "raw")
METHODS = ("auto", "gram", "products")
STOPS = ("residual", "gap")
SPLITS = ("train", "val", "test", "heldout", "all_train")
STANDARDISED, PIXELS = UNITS = ("standardised", "pixels")
# What values do not depend on, or what stands beside them in names of files.
_NO_IDENTITY = (
    "dataset_split",
    "checkpoints",
    "shard",
    "skip",
    "num_examples",
    "batch_size",
    "memory_limit_mb",
    "json",
    "jit_compile",
    "overwrite",
)
_CHECKPOINT = re.compile(r"all|first|last|(epoch:|step:)?\d+|order:-?\d+")


@dataclasses.dataclass(frozen=True)
class StatsConfig:
    """Statistics of the input Jacobian of one model at many examples, at one or several of its checkpoints.

    Attributes:
        metrics: some of `METRICS`.
        normalisations: some of `NORMALISATIONS`: what of the logits is differentiated.
        target_logit_only: the label's entry alone.
        strategies: some of `STRATEGIES`: where besides the example itself; "none" for nowhere.
        averages: some of `AVERAGES`, over the points of each strategy.
        num_directions: of "shift" and "svd".
        num_samples: draws of the random strategies.
        num_signs: random signs that a Frobenius norm is estimated from where there are more than 128 outputs.
        radius: standard deviation of "gaussian", radius of "ball" and "sphere", in units of the inputs.
        shift_pixels: how far "shift" moves images, growing.
        svd_sizes: how many singular values "svd" removes, growing.
        checkpoints: "last", "first", "all", an epoch as "20" or "epoch:20", "step:400", or "order:0" to "order:-1".
        dataset_split: one of `SPLITS`; "heldout" and "all_train" are of a run of a zoo.
        units: derivatives by "standardised" inputs, as the model takes them, or by "pixels" in [0, 1].
        shard: (i, n), from (1, 1) to (n, n): see `positions`.
        skip: examples of the split that are passed over before anything else.
        num_examples: how many are taken then; None for all.
        batch_size: points that are differentiated at a time.
        memory_limit_mb: of the Jacobians of a batch, which is made smaller for it; values do not depend on it.
        method: one of `METHODS`.
        tolerance: relative, of iterations.
        stop: what of an iteration is held to the tolerance, one of `STOPS`.
        mc_sample_seed: of all that is random, which belongs to (seed, example, direction).
        json: write the published JSON files as well.
        jit_compile: have XLA compile what is differentiated.
        overwrite: delete results of another config.

    Raises:
        InvalidValueError: a value lies outside what is allowed.
    """

    metrics: tuple[str, ...] = ("jacobian_operator_norm",)
    normalisations: tuple[str, ...] = ("none",)
    target_logit_only: bool = False
    strategies: tuple[str, ...] = ("none",)
    averages: tuple[str, ...] = ("euclidean",)
    num_directions: int = 4
    num_samples: int = 8
    num_signs: int = 64
    radius: float = 0.1
    shift_pixels: tuple[int, ...] = (1, 2, 3, 4)
    svd_sizes: tuple[int, ...] = (5, 10, 15, 20, 22, 25)
    checkpoints: tuple[str, ...] = ("last",)
    dataset_split: str = "train"
    units: str = STANDARDISED
    shard: tuple[int, int] = (1, 1)
    skip: int = 0
    num_examples: int | None = None
    batch_size: int = 32
    memory_limit_mb: float = 1024.0
    method: str = "auto"
    tolerance: float = 1e-4
    stop: str = "residual"
    mc_sample_seed: int = 0
    json: bool = True
    jit_compile: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be before anything is loaded."""
        _check_several("metric", self.metrics, METRICS)
        _check_several("normalization", self.normalisations, NORMALISATIONS)
        _check_several("strategy", self.strategies, STRATEGIES)
        _check_several("average", self.averages, AVERAGES)
        _check_several("dataset_split", (self.dataset_split,), SPLITS)
        _check_several("units", (self.units,), UNITS)
        _check_several("method", (self.method,), METHODS)
        _check_several("stop", (self.stop,), STOPS)
        self._check_numbers()
        for name in ("shift_pixels", "svd_sizes"):
            values = getattr(self, name)
            if not values or values[0] < 1 or list(values) != sorted(set(values)):
                raise errors.InvalidValueError(
                    f"--{name}={','.join(map(str, values))}: expected whole numbers from 1 up, each above the last"
                )
        for text in self.checkpoints or ("",):
            if not _CHECKPOINT.fullmatch(text):
                raise errors.InvalidValueError(
                    f"--checkpoint={text}: expected last, first, all, epoch:20 (or 20), step:400 or order:-2"
                )

    def _check_numbers(self) -> None:
        for name, least in (
            ("num_directions", 1),
            ("num_samples", 1),
            ("num_signs", 2),
            ("skip", 0),
            ("num_examples", 1),
            ("batch_size", 1),
            ("mc_sample_seed", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise errors.InvalidValueError(f"--{name}={value}: must be at least {least}")
        for name in ("radius", "memory_limit_mb"):
            if not 0 < getattr(self, name) < float("inf"):
                raise errors.InvalidValueError(f"--{name}={getattr(self, name)}: must be a number above 0")
        if not 0 < self.tolerance < 1:
            raise errors.InvalidValueError(f"--tolerance={self.tolerance}: must lie between 0 and 1")
        i, n = self.shard
        if not 1 <= i <= n:
            raise errors.InvalidValueError(f"--shard={i}/{n}: expected i/n with i from 1 to n, like 2/8")

    def chosen(self, num: int) -> np.ndarray:
        """Positions in a split of `num` examples of those that all shards together are of, ascending.

        Raises:
            InvalidValueError: none is left.
        """
        stop = num if self.num_examples is None else min(num, self.skip + self.num_examples)
        if stop <= self.skip:
            raise errors.InvalidValueError(
                f"--skip={self.skip}: leaves none of the {num} examples of the split {self.dataset_split}; skip fewer"
            )
        return np.arange(self.skip, stop)

    def positions(self, num: int) -> np.ndarray:
        """Positions of the examples of this shard: each n-th of `chosen`, from the i-th on.

        The shards of one (skip, num_examples, n) have no example in common, and together they are all of `chosen`.

        Raises:
            InvalidValueError: none is left.
        """
        i, n = self.shard
        found = self.chosen(num)[i - 1 :: n]
        if not found.size:
            raise errors.InvalidValueError(
                f"--shard={i}/{n}: there are only {len(self.chosen(num))} examples, so this shard has none; use at "
                "most that many shards"
            )
        return found

    def identity(self) -> dict[str, Any]:
        """What values depend on, as JSON gives it back; not at which examples and checkpoints."""
        return {name: value for name, value in self.to_json().items() if name not in _NO_IDENTITY}

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON gives it back; `from_json` is the inverse."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "StatsConfig":
        """What `to_json` made."""
        members: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in stored.items()}
        return cls(**members)


def _check_several(flag: str, values: Sequence[str], known: Sequence[str]) -> None:
    wrong = [value for value in values if value not in known]
    if wrong or not values:
        raise errors.InvalidValueError(f"--{flag}={','.join(wrong)}: expected some of {', '.join(known)}")
    if len(set(values)) < len(values):
        raise errors.InvalidValueError(f"--{flag}={','.join(values)}: a name is given twice; give each once")


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) of "i/n".

    Raises:
        InvalidValueError: it has another form.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    if not found:
        raise errors.InvalidValueError(f"--shard={text}: expected i/n with i from 1 to n, like 2/8")
    return int(found[1]), int(found[2])


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """Which model, and where its results go.

    Attributes:
        run: folder of train_model or of a run of a zoo; None for a user's own model.
        model: "package.module:callable" or the path of a .keras file; None for a run.
        dataset: its name; None for that of the run.
        data_dir: where it lies.
        architecture: of a zoo's run, where no recipe tells.
        save_dir: folder of all results; None for beside the run of train_model.
        name: folder below it, and without it part of the name of the folder beside the run; None for the usual ones.
        outdir: folder of the results in place of both.
        unfinished: of a network of train_model whose training has not ended, or diverged, take "last" and "all" from
            the checkpoints that there are.

    Raises:
        InvalidValueError: both kinds of model or neither.
    """

    run: str | None = None
    model: str | None = None
    dataset: str | None = None
    data_dir: str | None = None
    architecture: str | None = None
    save_dir: str | None = None
    name: str | None = None
    outdir: str | None = None
    unfinished: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if (self.run is None) == (self.model is None):
            raise errors.InvalidValueError(
                "which model: give --run (the folder of a run) or --model (package.module:callable, or a .keras file), "
                "not both"
            )
        if self.model is not None and self.architecture is not None:
            raise errors.InvalidValueError("--arch says nothing of --model; leave it out")
        if self.name is not None and not re.fullmatch(r"\w[\w.+-]*", self.name):
            raise errors.InvalidValueError(
                f"--name={self.name}: expected letters, digits, and any of _.+- after the first one"
            )

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON gives it back; `from_json` is the inverse."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "SourceConfig":
        """What `to_json` made."""
        return cls(**stored)
