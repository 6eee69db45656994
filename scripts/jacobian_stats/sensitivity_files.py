"""The files of `plot_sensitivity`; needs no TensorFlow.

<outdir>/stats.json              what all values depend on; results of other settings are refused
<outdir>/.parts-runs/*.npz       a run's values, by weights and examples, with a digest of all training labels; kept, so
                                 that more runs can be added
<outdir>/sensitivity.parquet     (or .csv) a row an example
<outdir>/correlations.json       rank correlations with intervals
<outdir>/sensitivity.png         the picture
"""

from collections.abc import Mapping, Sequence
import pathlib

import numpy as np

from scripts.jacobian_stats import sensitivity, stats_files
from zoo import errors, files, layout, npz

FIGURE_NAME, TABLE_NAME, CORRELATIONS_NAME = "sensitivity.png", "sensitivity", "correlations.json"
_RUNS_NAME = ".parts-runs"
_LABEL_NAME = "train_label_sha256"


def run_path(config: sensitivity.SensitivityConfig, run: layout.Run, positions: np.ndarray) -> pathlib.Path:
    """Where the values of a run lie, by its last weights and the examples; nothing is read but the index of weights."""
    weights = files.sha256_of_file(f"{layout.latest_checkpoint(run)}.index")
    digest = stats_files.digest([weights, positions.tolist()])
    return pathlib.Path(config.outdir) / _RUNS_NAME / f"{run.run_id}-{digest}.npz"


def write_run(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], columns: Sequence[stats_files.Column], label_sha256: str
) -> None:
    """Stores the values of a run with a digest of its training labels, whole or not at all."""
    stats_files.write_part(path, {**arrays, _LABEL_NAME: np.array(label_sha256)}, columns)


def read_run(
    path: pathlib.Path, num: int, label_sha256: str
) -> tuple[dict[str, np.ndarray], tuple[stats_files.Column, ...]] | None:
    """The values of a run at `num` examples; None where there are none, or damaged ones: they are measured again.

    Args:
        path: as `run_path` gives it.
        num: of the examples.
        label_sha256: digest of the training labels that the values are to stand beside.

    Raises:
        MismatchError: the run has other training labels.
    """
    stored = stats_files.read_part(path, num)
    try:
        found = str(npz.read(path, [_LABEL_NAME])[_LABEL_NAME])
    except (errors.MissingFileError, errors.DamagedFileError):
        return None
    if stored is not None and found != label_sha256:
        raise errors.MismatchError(
            f"{path}: the run was measured with other training labels than those of the scores; compute the scores "
            "again, or choose another --outdir"
        )
    return stored


def identity(config: sensitivity.SensitivityConfig) -> dict[str, object]:
    """What the values of any run depend on."""
    return {
        "experiment": config.experiment,
        "subset_ratio": config.subset_ratio,
        "architecture": config.architecture,
        "settings": config.stats.identity(),
    }
