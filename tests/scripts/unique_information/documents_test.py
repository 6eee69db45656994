"""What docs/unique_information.md shows runs as it stands, and every measure and flag that it names is there."""

import pathlib
import re

import numpy as np

from scripts.unique_information import scoring_config

_ROOT = pathlib.Path(__file__).parents[3]
_TEXT = (_ROOT / "docs" / "unique_information.md").read_text(encoding="utf-8")


def test_the_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", _TEXT, re.DOTALL)
    names: dict = {}
    exec(compile(code, "unique_information.md", "exec"), names)
    assert names["information"].nats.shape == names["functional"].nats.shape == names["memorized"].shape == (100,)
    assert names["removed"].check.change_error < 1e-3
    # Most examples are said to have their label by networks that were trained on them more than by others.
    assert np.mean(names["memorized"] < 0) > 0.8
    assert "most informative" in capsys.readouterr().out


def test_every_measure_is_explained_and_every_flag_exists():
    rows = re.findall(r"^\| `(\w+)` \|", _TEXT, re.MULTILINE)
    assert rows == list(scoring_config.MEASURES)
    folder = _ROOT / "scripts"
    sources = [*folder.glob("*.py"), *folder.glob("unique_information/*.py")]
    defined = set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", "".join(path.read_text() for path in sources)))
    assert set(re.findall(r"--(\w+)", _TEXT)) - defined == set()
