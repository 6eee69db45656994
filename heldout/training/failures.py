"""Runs that failed, so that a zoo tells of them: `failures.jsonl` in an experiment's folder, one JSON object a line.

A line is appended in one write and flushed to the disk. A kill can leave the last line unfinished; readers pass it by,
and the next writer begins a new line after it.
"""

from collections.abc import Sequence
import dataclasses
import datetime
import json
import math
import os
import pathlib
import shlex
from typing import Any, Self

import heldout
from heldout import subsets
from heldout.experiments import label_noise, recipes, subset_rankings, training_config
from heldout.training import run_results
from zoo import errors, files, layout

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Failure:
    """A run that was trained and came to nothing.

    Attributes:
        subset_ratio: of the run.
        run_id: of the run.
        reason: why there is no record.
        seed: of its initial values, as 32 hexadecimal digits; all its seeds follow from its name.
        loss: last mean training loss of an epoch, in nats; None where it was not a finite number.
        epoch: the epoch, from 1, after which the failure showed; None where it is not known.
        code_version: of Heldout.
        time: UTC, as in "2026-01-31T12:00:00+00:00".
        retry: the command that trains this run alone; where subsets follow a ranking, what trains it with others.
    """

    subset_ratio: float
    run_id: int
    reason: str
    seed: str
    loss: float | None
    epoch: int | None
    code_version: str
    time: str
    retry: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"schema_version": SCHEMA_VERSION} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any, where: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            DamagedFileError: it is no such object; `where` names file and line.
        """
        types: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(cls)}
        sound = isinstance(value, dict) and set(types) < set(value) and value.get("schema_version") == SCHEMA_VERSION
        if not sound or not all(isinstance(value[name], kind) for name, kind in types.items()):
            raise errors.DamagedFileError(
                f"{where}: expected an object of schema version {SCHEMA_VERSION} with {', '.join(types)}; delete the "
                "line, or the file to forget all failures"
            )
        return cls(**{name: value[name] for name in types})


def describe(
    recipe: recipes.Recipe, result: run_results.RunResult, data_dir: str | None = None, store: str | None = None
) -> Failure:
    """The failure behind a result, as of now.

    Args:
        recipe: of the experiment.
        result: one with a failure.
        data_dir: where the data set lies, for the command.
        store: address of the zoo, where the folder of the run only stands for it.
    """
    run = result.run
    name = (run.experiment, run.subset_ratio, run.run_id)
    if recipe.ranking_sha256 is None:
        retry = shlex.join(["train_runs", *retry_flags(recipe, run, data_dir, store)])
    else:  # train_runs draws its subsets
        name, retry = subset_rankings.seed_name(name), "the same command of train_on_most_influential"
    return Failure(
        subset_ratio=run.subset_ratio,
        run_id=run.run_id,
        reason=result.failure or "",
        seed=f"{subsets.seed(name, 'initialisation'):032x}",
        loss=result.loss if math.isfinite(result.loss) else None,
        epoch=result.epoch,
        code_version=heldout.__version__,
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        retry=retry,
    )


def retry_flags(
    recipe: recipes.Recipe, run: layout.Run, data_dir: str | None = None, store: str | None = None
) -> list[str]:
    """The flags of `train_runs` that train one run of an experiment; arguments as those of `describe`."""
    flags = {
        "zoo": store or os.path.abspath(run.zoo),
        "experiment": recipe.experiment,
        "dataset": recipe.dataset_flag,
        "arch": recipe.architecture,
        "arch_options": json.dumps(recipe.architecture_options),
        "subset_ratio": layout.ratio_name(run.subset_ratio),
        "run_ids": str(run.run_id),
        **_training_flags(recipe.training),
    }
    if data_dir is not None:
        flags["data_dir"] = os.path.abspath(data_dir)
    if recipe.subset_sampling != subsets.UNIFORM:
        flags["subset_sampling"] = recipe.subset_sampling
    if recipe.noise is not None:
        flags |= _noise_flags(recipe.noise)
    return [f"--{name}={value}" for name, value in flags.items()]


def _training_flags(config: training_config.TrainingConfig) -> dict[str, str]:
    """What differs from the defaults."""
    flags = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            flags[field.name] = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return flags


def _noise_flags(noise: label_noise.LabelNoise) -> dict[str, str]:
    flags = {"label_noise": ":".join(filter(None, (noise.kind, noise.amount()))), "label_seed": str(noise.seed)}
    if noise.map_json():
        flags["label_map"] = json.dumps(noise.map_json())
    return flags


def append(zoo: files.PathLike, experiment: str, failure: Failure) -> None:
    """Adds a failure to those of its experiment.

    Raises:
        OSError: the file cannot be written.
    """
    path = layout.failures_path(zoo, experiment)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(failure.to_json(), allow_nan=False).encode() + b"\n"
    with open(path, "ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read(1) == b"\n" else b"\n" + line
        stream.write(line)
        stream.flush()
        os.fsync(stream.fileno())


def read(zoo: files.PathLike, experiment: str) -> list[Failure]:
    """All failures of an experiment, in the order in which they happened; none where there is no file.

    Raises:
        DamagedFileError: a line is no failure; unfinished lines are passed by.
    """
    path = layout.failures_path(zoo, experiment)
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    stored = [(number, _parse(line)) for number, line in enumerate(lines, start=1)]
    return [Failure.from_json(value, f"{path}, line {number}") for number, value in stored if value is not None]


def current(zoo: files.PathLike, experiment: str) -> list[Failure]:
    """The last failure of each run that has still no record, by ratio and run id.

    Raises:
        DamagedFileError: as `read`.
    """
    last = {(failure.subset_ratio, failure.run_id): failure for failure in read(zoo, experiment)}
    folder = pathlib.Path(zoo)
    return [last[name] for name in sorted(last) if not layout.Run(folder, experiment, *name).aux_arrays_path.exists()]


def _parse(line: bytes) -> Any:
    """A line, or None for one that was cut off, which is no JSON."""
    try:
        return json.loads(line) if line.strip() else None
    except (ValueError, RecursionError):
        return None


def too_many(results: Sequence[run_results.RunResult], most: int) -> bool:
    """Whether the last runs, as many as are allowed, have all failed; with 0 any number is."""
    last = results[-most:]
    return 0 < most == len(last) and all(result.failure is not None for result in last)
