"""What docs/attribution.md shows runs as it stands."""

import pathlib
import re

import numpy as np

_DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "attribution.md"


def test_the_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", _DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(code, _DOCUMENT.name, "exec"), names)
    assert names["scores"].values.shape == (1000, 10)
    assert "(1000, 10) having the training example raises the margin" in capsys.readouterr().out
    # Those that help a digit most are mostly of its class.
    labels, helpful = names["labels"], names["scores"].helpful(0)[:10]
    assert np.mean(labels[helpful] == labels[1000]) > 0.5
