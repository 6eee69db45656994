"""What `evaluate_zoo` writes: for each run what it predicts, and one table for all of them.

<zoo>/<experiment>/evaluation/<split>[-epoch-<epoch>]/evaluation.json        what was evaluated, and how
                                                      <ratio>/<run_id>.npz   correctness and margins
                                                      <ratio>/<run_id>.json  a summary; written last
                                                      agreement.csv          a row for each run evaluated so far
"""

from collections.abc import Iterable
import csv
import dataclasses
import io
import pathlib
from typing import Any, Self

import numpy as np

from zoo import errors, files, layout, npz

SCHEMA_VERSION = 1
CONFIG_NAME = "evaluation.json"
TABLE_NAME = "agreement.csv"


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """Predictions of one run beside its record; n examples.

    Attributes:
        correctness: bool [n], found now.
        recorded: bool [n].
        in_subset: bool [n], whether the run was trained on them; None on the test set.
    """

    correctness: np.ndarray
    recorded: np.ndarray
    in_subset: np.ndarray | None

    def accuracies(self) -> dict[str, float | None]:
        """Share of right predictions on each part; None for those that the split does not have."""
        masks = {"test": np.ones(len(self.correctness), bool)}
        if self.in_subset is not None:
            masks = {"in": self.in_subset, "heldout": ~self.in_subset}
        found = {name: float(np.mean(self.correctness[mask])) for name, mask in masks.items()}
        return {f"accuracy_{name}": found.get(name) for name in ("in", "heldout", "test")}


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """One row of the table.

    Attributes:
        subset_ratio: of the run.
        run_id: of the run.
        epoch: of the checkpoint, where it says.
        num_predictions: n, examples of the split.
        num_matching: predictions that are right where the record says so, and wrong where it says that.
        accuracy_in: share of right predictions on the subset trained on; None on the test set.
        accuracy_heldout: the same on the rest of the training set.
        accuracy_test: the same on the test set; None on the training set.
        checkpoint_sha256: of the checkpoint's index file, which holds checksums of all variables.
    """

    subset_ratio: float
    run_id: int
    epoch: int | None
    num_predictions: int
    num_matching: int
    accuracy_in: float | None
    accuracy_heldout: float | None
    accuracy_test: float | None
    checkpoint_sha256: str

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self | None:
        """The inverse of `dataclasses.asdict`; None for what is no such object."""
        names = {field.name for field in dataclasses.fields(cls)}
        if value.get("schema_version") != SCHEMA_VERSION or not names <= value.keys():
            return None
        return cls(**{name: value[name] for name in names})


def summarise(run: layout.Run, parts: Parts, epoch: int | None, checkpoint_sha256: str) -> RunSummary:
    """The row of a run."""
    matching = int(np.count_nonzero(parts.correctness == parts.recorded))
    return RunSummary(
        run.subset_ratio,
        run.run_id,
        epoch,
        len(parts.correctness),
        matching,
        **parts.accuracies(),
        checkpoint_sha256=checkpoint_sha256,
    )


def checkpoint_digest(run: layout.Run, epoch: int | None) -> str:
    """SHA-256 of the index file of a run's checkpoint.

    Raises:
        MissingFileError: there is no such checkpoint.
    """
    prefix = layout.latest_checkpoint(run) if epoch is None else run.checkpoint_prefix(epoch)
    path = prefix.with_name(prefix.name + layout.CHECKPOINT_INDEX_SUFFIX)
    if not path.is_file():
        raise errors.MissingFileError(f"{path}: no such file; give an --epoch that the runs have a checkpoint of")
    return files.sha256_of_file(path)


def directory(zoo: files.PathLike, experiment: str, split: str, epoch: int | None) -> pathlib.Path:
    """The folder of one evaluation."""
    name = split if epoch is None else f"{split}-epoch-{epoch}"
    return layout.evaluation_directory(zoo, experiment) / name


def adopt(output: pathlib.Path, options: dict[str, Any]) -> None:
    """Says what the folder holds, or checks that it holds just that.

    Raises:
        MismatchError: it holds results of other options.
        DamagedFileError: the file that says so is damaged.
    """
    asked = {"schema_version": SCHEMA_VERSION, "options": options}
    try:
        stored = files.read_json(output / CONFIG_NAME)
    except errors.MissingFileError:
        files.write_json(output / CONFIG_NAME, asked)
        return
    if stored != asked:
        raise errors.MismatchError(
            f"{output} holds results of other options:\n  stored {stored.get('options')}\n  asked for {options}\n"
            "Move or delete the folder, or ask for what is stored."
        )


def write(output: pathlib.Path, summary: RunSummary, correctness: np.ndarray, margin: np.ndarray) -> None:
    """Writes the two files of a run, the summary last."""
    path = _path(output, summary.subset_ratio, summary.run_id)
    arrays = {"schema_version": np.asarray(SCHEMA_VERSION), "correctness": correctness, "margin": margin}
    npz.write(path.with_suffix(".npz"), arrays)
    files.write_json(path, {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(summary)})


def read(output: pathlib.Path, subset_ratio: float, run_id: int) -> RunSummary | None:
    """The summary of a run; None where there is none that can be used."""
    path = _path(output, subset_ratio, run_id)
    try:
        return RunSummary.from_json(files.read_json(path)) if path.with_suffix(".npz").is_file() else None
    except (errors.MissingFileError, errors.DamagedFileError):
        return None


def read_all(output: pathlib.Path) -> list[RunSummary]:
    """The summaries of all runs of an evaluation, whichever call has written them; in no order."""
    found = []
    for path in output.glob("*/*.json"):
        ratio, run_id = layout.parse_ratio(path.parent.name), layout.parse_run_id(path.stem)
        summary = None if ratio is None or run_id is None else read(output, ratio, run_id)
        found += [] if summary is None else [summary]
    return found


def _path(output: pathlib.Path, subset_ratio: float, run_id: int) -> pathlib.Path:
    return output / layout.ratio_name(subset_ratio) / f"{run_id}.json"


def write_table(output: pathlib.Path, summaries: Iterable[RunSummary]) -> pathlib.Path:
    """Writes all rows by ratio and run id; returns where."""
    names = [field.name for field in dataclasses.fields(RunSummary)]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(names)
    for summary in sorted(summaries, key=lambda row: (row.subset_ratio, row.run_id)):
        rows.writerow([getattr(summary, name) for name in names])
    files.write_text(output / TABLE_NAME, text.getvalue())
    return output / TABLE_NAME
