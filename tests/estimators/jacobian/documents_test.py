"""What docs/jacobian.md shows runs as it stands."""

import pathlib
import re

import numpy as np

from estimators.jacobian import averages, measuring, normalisations, places

_TEXT = (pathlib.Path(__file__).parents[3] / "docs" / "jacobian.md").read_text(encoding="utf-8")


def test_the_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", _TEXT, re.DOTALL)
    names: dict = {}
    exec(compile(code, "jacobian.md", "exec"), names)
    assert names["norms"].shape == (50,)
    assert names["summary"].maximum == names["norms"].max()
    assert names["norms"].max() <= names["layer_bounds"].of(names["function"]).bound
    around = names["around"]
    assert np.isfinite(around.values).all()
    assert (around.details.quadrature_errors < 0.5 * around.values).all()
    assert "empirical Lipschitz constant" in capsys.readouterr().out


def test_every_name_is_explained():
    kinds = (kind.__name__ for kind in (places.Gaussian, places.Sphere, places.Ball, places.MixUp, places.Refined))
    for name in (*measuring.METRICS, *normalisations.NAMES, *averages.NAMES, *kinds, "Shifts", "SvdWindows"):
        assert f"`{name}" in _TEXT, name
