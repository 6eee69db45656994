"""The whole computation of a run gives on two logical devices what it gives on one."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from heldout import models
from heldout.datasets import registry
from heldout.experiments import recipes
from tests import cases
from zoo import aux_arrays, checkpoints, layout

_ROOT = pathlib.Path(__file__).parents[3]
_PROGRAM = """
import sys
from heldout import devices
strategy = devices.strategy("cpu", num_logical=int(sys.argv[4]))
from scripts.attribution import influence_config, influence_run, model_sources, source_config
source = source_config.SourceConfig(run=sys.argv[1], dataset=sys.argv[2])
model = model_sources.load(source, strategy.scope)
assert (model.target.strategy is None) == (sys.argv[4] == "1")
config = influence_config.InfluenceConfig(outdir=sys.argv[3], method=sys.argv[5], test_ids=(0, 1, 2))
influence_run.run(influence_run.Computation(config, model))
"""


def make_run(folder):
    """A run in float64, so that rounding can be told from faults; (its folder, the name of its data set)."""
    name = cases.tiny_digits_npz(folder / "tiny.npz")
    recipes.adopt(folder / "zoo", cases.tiny_recipe(registry.load(name), dtype="float64"))
    run = layout.Run(folder / "zoo", "e", 0.5, 3)
    module = models.build("mlp", 10, (8, 8, 1), {"hidden_sizes": [8]}, dtype="float64")
    checkpoints.write(module, run.checkpoint_prefix(2), epoch=2, global_step=6)
    mask = np.arange(60) < 31
    aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(mask, mask, np.ones(20, bool)))
    return run.directory, name


# Of conjugate gradients to a residual of 1e-5 that much may differ.
@pytest.mark.parametrize(
    ("method", "tolerance"), [("ekfac", 1e-7), pytest.param("conjugate_gradient", 1e-4, marks=pytest.mark.slow)]
)
def test_two_logical_devices_give_the_scores_of_one(tmp_path, method, tolerance):
    run, data = make_run(tmp_path)
    values = []
    for num in ("1", "2"):
        outdir = tmp_path / num
        command = [sys.executable, "-c", _PROGRAM, str(run), data, str(outdir), num, method]
        result = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        values.append(np.load(outdir / "scores" / "values.npy"))
    largest = np.abs(values[0]).max()
    assert largest > 1e-6
    np.testing.assert_allclose(values[1], values[0], rtol=0, atol=tolerance * largest)
