"""The allow-list of paths: everything that the layout writes, and nothing else."""

import pathlib
import string

from hypothesis import given
from hypothesis import strategies as st
import pytest

from zoo import errors, layout
from zoo.archive import names

RATIOS = st.floats(0, 1, exclude_min=True, exclude_max=True).filter(lambda ratio: ratio > 1e-5)
RUN_IDS = st.integers(0, 10**18 - 1)
EXPERIMENTS = st.text(string.ascii_letters + string.digits + "-_. ", min_size=1, max_size=20).filter(
    lambda name: not name.startswith(".")
)
PREFIXES = st.sampled_from(["", "./", "zoos/", "./a/b/", ".//a/./", "0.5/", "e/0.5/0/checkpoints/"])


def prefix_of(prefix):
    return "/".join(part for part in prefix.split("/") if part not in ("", "."))


def paths_of(run, epoch):
    """Every file that the layout has for a run, with what it is."""
    prefix = run.checkpoint_prefix(epoch)
    return {
        run.aux_arrays_path: ("aux_arrays", None),
        prefix.with_name(prefix.name + layout.CHECKPOINT_INDEX_SUFFIX): ("checkpoint_index", epoch),
        prefix.with_name(prefix.name + layout.CHECKPOINT_DATA_SUFFIX): ("checkpoint_data", epoch),
    }


@given(RATIOS, RUN_IDS, RUN_IDS, EXPERIMENTS, PREFIXES)
def test_all_files_of_a_run(ratio, run_id, epoch, experiment, prefix):
    run = layout.Run(pathlib.Path(), experiment, ratio, run_id)
    for path, (part, its_epoch) in paths_of(run, epoch).items():
        name = names.classify(f"{prefix}{path}")
        assert (name.experiment, name.part, name.epoch) == (experiment, part, its_epoch)
        assert (name.subset_ratio, name.run_id) == (ratio, run_id)
        assert pathlib.Path(experiment) / name.relative == path
        assert name.prefix == prefix_of(prefix)


@pytest.mark.parametrize("prefix", ["", "./", "a/b/"])
def test_files_of_the_experiment(prefix):
    for path, part in ((layout.recipe_path(".", "e"), "recipe"), (layout.run_table_path("", "e"), "run_table")):
        name = names.classify(f"{prefix}{path}")
        assert name == names.MemberName("e", part, None, None, None, path.name, prefix_of(prefix))


def test_archives_of_what_lies_below_the_experiment():
    name = names.classify("0.5/3/aux_arrays.npz")
    assert (name.experiment, name.part, name.relative, name.prefix) == ("", "aux_arrays", "0.5/3/aux_arrays.npz", "")
    assert names.classify("./recipe.json") == names.MemberName("", "recipe", None, None, None, "recipe.json", "")


@pytest.mark.parametrize(
    "path",
    [
        ".",
        "./",
        "e/",
        "e/0.5",
        "e/0.5/3/",
        "e/0.5/3/checkpoints/",
        "e/0.5/3/aux_arrays.npz.part",
        "e/0.5/3/.aux_arrays.npz",
        "e/0.5/3/Aux_arrays.npz",
        "e/0.5/3/aux_arrays.npz/x",
        "e/0.5/3/notes.txt",
        "e/0.50/3/aux_arrays.npz",
        "e/0.5/03/aux_arrays.npz",
        "e/1.5/3/aux_arrays.npz",
        "e/.5/3/aux_arrays.npz",
        "e/٠.٥/3/aux_arrays.npz",
        "e/0.5/٣/aux_arrays.npz",
        "e/0.5/-3/aux_arrays.npz",
        "e/0.5/9999999999999999999/aux_arrays.npz",
        ".hidden/0.5/3/aux_arrays.npz",
        "3/aux_arrays.npz",
        "aux_arrays.npz",
        "e/0.5/3/ckpt-2.index",
        "e/0.5/3/checkpoints/checkpoint",
        "e/0.5/3/checkpoints/ckpt-02.index",
        "e/0.5/3/checkpoints/ckpt-2.data-00001-of-00002",
        "e/0.5/3/checkpoints/ckpt-2.index.tmp",
        "e/0.5/3/checkpoints/aux_arrays.npz",
        "e/0.5/recipe.json",
        "e/0.5/3/recipe.json",
        "e/0.5/3/checkpoints/run_table.npz",
        ".e/recipe.json",
        "README.md",
        "zoo…/é.txt",
    ],
)
def test_others(path):
    name = names.classify(path)
    assert (name.experiment, name.part, name.subset_ratio, name.run_id, name.epoch) == ("", "other", None, None, None)
    assert name.relative == "/".join(part for part in path.split("/") if part not in ("", "."))


def test_one_file_has_one_spelling():
    spellings = ["e/0.5/1/aux_arrays.npz", "./e/0.5/1/aux_arrays.npz", "e//0.5/./1///aux_arrays.npz"]
    assert len({names.classify(path) for path in spellings}) == 1


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "its path is empty"),
        ("/e/0.5/1/aux_arrays.npz", "its path is absolute"),
        ("//e/0.5/1/aux_arrays.npz", "its path is absolute"),
        ("..", r'its path holds "\.\."'),
        ("../e/0.5/1/aux_arrays.npz", r'its path holds "\.\."'),
        ("e/0.5/1/../1/aux_arrays.npz", r'its path holds "\.\."'),
        ("e/0.5/1/aux_arrays.npz/..", r'its path holds "\.\."'),
        ("e\\0.5\\1\\aux_arrays.npz", "its path holds a backslash"),
        ("C:\\aux_arrays.npz", "its path holds a backslash"),
        ("e/0.5/1/aux_arrays.npz\n", "its path holds control characters"),
        ("e/0.5/1/aux_arrays.npz\0", "its path holds control characters"),
        ("e/\x1b[2J", "its path holds control characters"),
        ("e/\x7f", "its path holds control characters"),
        ("e/\x9b2J", "its path holds control characters"),
        ("e/\u202e", "its path holds control characters"),
        ("e/\u200b", "its path holds control characters"),
        ("e/\u2028", "its path holds control characters"),
        ("e/\udcff", "its path is not UTF-8"),
        ("e/" + 1023 * "x", "its path has 1025 bytes, expected 1024 at most"),
        ("e/" + 512 * "é", "its path has 1026 bytes, expected 1024 at most"),
    ],
)
def test_refused_paths(path, problem):
    with pytest.raises(errors.UnsafeArchiveError, match=problem) as caught:
        names.classify(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


def test_longest_path():
    assert names.classify("e/" + 1022 * "x").part == "other"


def test_dots_that_lead_nowhere():
    assert names.classify("e/..x/y../z..w").part == "other"


@given(st.lists(st.sampled_from(["e", "0.5", "3", "checkpoints", "aux_arrays.npz", "ckpt-1.index", "recipe.json"])))
def test_what_is_recognised_is_what_the_layout_writes(parts):
    path = "/".join(parts) or "."
    name = names.classify(path)
    if name.part == "other":
        return
    zoo = pathlib.Path(name.prefix)
    experiment = name.experiment or "unnamed"
    if name.run_id is None:
        expected = {"recipe": layout.recipe_path, "run_table": layout.run_table_path}[name.part](zoo, experiment)
    else:
        run = layout.Run(zoo, experiment, name.subset_ratio, name.run_id)
        known = {kind: path for path, kind in paths_of(run, name.epoch or 0).items()}
        expected = known[name.part, name.epoch]
    assert expected == zoo / experiment / name.relative
    if name.experiment:
        assert expected == pathlib.Path(path)


@given(st.text(max_size=30))
def test_any_text_is_classified_or_refused(path):
    try:
        name = names.classify(path)
    except errors.UnsafeArchiveError:
        return
    assert not name.relative.startswith("/")
    assert ".." not in name.relative.split("/")
