"""The names and defaults of docs/attribution.md are those of the config."""

import dataclasses
import pathlib
import re

from scripts.attribution import influence_config

_TEXT = (pathlib.Path(__file__).parents[3] / "docs" / "attribution.md").read_text(encoding="utf-8")


def test_names_in_the_table_are_those_of_the_config():
    table = _TEXT[_TEXT.index("| name | default |") :].split("\n\n")[0]
    names = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    fields = {field.name: field.default for field in dataclasses.fields(influence_config.InfluenceConfig)}
    assert names <= set(fields)
    known = {"recursion_depth", "r", "damp", "scale", "seed", "outdir", "save_pth", "log_filename", "gpu"}
    assert known | {"test_sample_num", "test_sample_start_per_class"} <= names
    defaults = {line.split("|")[1].strip(" `"): line.split("|")[2].strip(" `") for line in table.splitlines()[2:]}
    for name in ("outdir", "method", "damp", "scale", "seed"):
        assert defaults[name] == f"{fields[name]}".removesuffix(".0")
