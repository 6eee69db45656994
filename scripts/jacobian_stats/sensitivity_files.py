"""The files of `plot_sensitivity`; needs no TensorFlow.

<outdir>/stats.json              what all values depend on; results of other settings are refused
<outdir>/.parts-runs/*.npz       a run's values, by weights and examples; kept, so that more runs can be added
<outdir>/sensitivity.parquet     (or .csv) a row an example
<outdir>/correlations.json       rank correlations with intervals
<outdir>/sensitivity.png         the picture
"""

import pathlib

import numpy as np

from scripts.jacobian_stats import sensitivity, stats_files
from zoo import files, layout

FIGURE_NAME, TABLE_NAME, CORRELATIONS_NAME = "sensitivity.png", "sensitivity", "correlations.json"
_RUNS_NAME = ".parts-runs"


def run_path(config: sensitivity.SensitivityConfig, run: layout.Run, positions: np.ndarray) -> pathlib.Path:
    """Where the values of a run lie, by its last weights and the examples; nothing is read but the index of weights."""
    weights = files.sha256_of_file(f"{layout.latest_checkpoint(run)}.index")
    digest = stats_files.digest([weights, positions.tolist()])
    return pathlib.Path(config.outdir) / _RUNS_NAME / f"{run.run_id}-{digest}.npz"


def identity(config: sensitivity.SensitivityConfig) -> dict[str, object]:
    """What the values of any run depend on."""
    return {
        "experiment": config.experiment,
        "subset_ratio": config.subset_ratio,
        "architecture": config.architecture,
        "settings": config.stats.identity(),
    }
