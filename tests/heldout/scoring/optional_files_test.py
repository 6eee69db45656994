"""Files that are asked for: what is written, when it is computed again, and what is refused before anything is."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet
import pytest

from heldout.scoring import class_means, margin_influence, margin_influence_files, optional_files, score_files
from tests.heldout.scoring import scored_zoos
from zoo import aux_arrays, errors, layout, run_table, run_table_update

N, M, RATIOS = 40, 9, (0.3, 0.7)
TRAIN_LABEL, TEST_LABEL = np.arange(N) % 3, np.arange(M) % 3


def write_runs(zoo, with_margins=RATIOS, run_ids=range(12), seed=0):
    """Runs whose margins on test example j rise with training example j."""
    for ratio in RATIOS:
        for run_id in run_ids:
            generator = np.random.default_rng([int(10 * ratio), run_id, seed])
            mask = np.isin(
                np.arange(N), np.random.default_rng([int(10 * ratio), run_id]).permutation(N)[: int(ratio * N)]
            )
            margin = (generator.normal(size=N).astype(np.float16), (3 * mask[:M]).astype(np.float16))
            margin[1][:] += generator.normal(size=M).astype(np.float16)
            run = layout.Run(zoo, "demo", ratio, run_id)
            right = np.random.default_rng([run_id, 1]).random(N) < 0.8
            pair = margin if ratio in with_margins else None
            aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(mask, right, right[:M], pair))
    run_table_update.update(zoo, "demo", train_label=TRAIN_LABEL, test_label=TEST_LABEL)


@pytest.fixture
def config(tmp_path):
    write_runs(tmp_path)
    return score_files.ScoreConfig(str(tmp_path), "demo", num_draws=5, top_k=3, cross_class=True, margin_influence=True)


def names(folder):
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_class_means_are_written(config):
    summary = score_files.compute_scores(config)
    table = run_table.read(layout.run_table_path(config.zoo, "demo"))
    rows = pyarrow.parquet.read_table(summary.directory / "cross_class.parquet").to_pydict()
    assert rows["subset_ratio"] == [0.3] * 9 + [0.7] * 9
    for part, ratio in enumerate(RATIOS):
        wanted = class_means.of_runs(table.select(ratio))
        found = class_means.read(summary.directory / f"cross_class-{ratio}.npz")
        np.testing.assert_array_equal(found.mean, wanted.mean)
        np.testing.assert_array_equal(rows["mean_influence"][9 * part : 9 * part + 9], wanted.mean.ravel())
    assert {path.name for path in summary.files} >= {
        "cross_class.parquet",
        "cross_class-0.3.npz",
        "cross_class-0.7.npz",
    }


def test_influence_on_margins_is_written(config):
    summary = score_files.compute_scores(config)
    table = run_table.read(layout.run_table_path(config.zoo, "demo"))
    margin = optional_files.margins.collect(config.zoo, "demo")[1]
    for ratio in RATIOS:
        (wanted,) = margin_influence.influence_margin_blocks(table, margin, ratio)
        np.testing.assert_array_equal(np.load(summary.directory / f"margin_influence-{ratio}.npy"), wanted.values)
        found = margin_influence_files.read(summary.directory / f"margin_influence-{ratio}.npz")
        assert np.mean(found.by_test.helpful_index[:, 0] == np.arange(M)) > 0.5
        assert (found.num_runs, found.num_runs_without) == (12, 0)
    listed = {path.name for path in summary.files}
    assert listed >= {f"margin_influence-{ratio}.{suffix}" for ratio in RATIOS for suffix in ("npz", "npy")}


def test_nothing_more_unless_asked_for_and_only_what_is_missing_when_asked(config):
    plain = dataclasses.replace(config, cross_class=False, margin_influence=False)
    directory = score_files.compute_scores(plain).directory
    assert not [name for name in names(directory) if "cross" in name or "margin" in name]
    assert not {"cross_class", "margin_influence", "margin_sources"} & set(
        json.loads((directory / "config.json").read_text())["config"]
    )
    times = {path: path.stat().st_mtime_ns for path in directory.glob("*influence-*")}
    with pytest.raises(errors.MismatchError, match="holds the scores of another configuration"):
        score_files.compute_scores(config)
    assert not score_files.compute_scores(dataclasses.replace(config, overwrite=True)).up_to_date
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert score_files.compute_scores(config).up_to_date
    # And back: what was listed goes, and the pictures of it.
    (directory / "cross_class-0.7.png").write_bytes(b"")
    score_files.compute_scores(dataclasses.replace(plain, overwrite=True))
    assert not [name for name in names(directory) if "cross" in name or "margin" in name]


def test_other_margins_are_noticed_though_the_runs_are_the_same(config):
    first = score_files.compute_scores(config).directory
    path = first / "margin_influence-0.7.npz"
    before = margin_influence_files.read(path)
    digest = run_table.read(layout.run_table_path(config.zoo, "demo")).digest()
    write_runs(config.zoo, seed=1)
    again = score_files.compute_scores(config)
    assert run_table.read(layout.run_table_path(config.zoo, "demo")).digest() == digest
    assert not again.up_to_date
    assert not np.array_equal(margin_influence_files.read(path).largest_per_test, before.largest_per_test)
    assert score_files.compute_scores(config).up_to_date
    layout.Run(config.zoo, "demo", 0.7, 3).aux_arrays_path.unlink()
    score_files.compute_scores(config)
    found = margin_influence_files.read(path)
    assert (found.num_runs, found.num_runs_without) == (11, 1)


@pytest.mark.parametrize("flag", ["margins", "margin_influence"])
def test_missing_margins_are_refused_before_anything_is_computed(tmp_path, flag):
    write_runs(tmp_path, with_margins=(0.3,))
    config = score_files.ScoreConfig(str(tmp_path), "demo", num_draws=5, **{flag: True})
    message = rf"--{flag}: no run of demo at ratio 0\.7 has margins; train_runs --margins keeps them, or leave"
    with pytest.raises(errors.InvalidValueError, match=message):
        score_files.compute_scores(config)
    assert not config.directory.exists()
    score_files.compute_scores(dataclasses.replace(config, subset_ratios=(0.3,)))


def test_missing_labels_are_refused_before_anything_is_computed(tmp_path):
    write_runs(tmp_path / "zoo")
    layout.run_table_path(tmp_path / "zoo", "demo").unlink()
    config = score_files.ScoreConfig(str(tmp_path / "zoo"), "demo", num_draws=5, cross_class=True)
    with pytest.raises(errors.InvalidValueError, match=r"--cross_class: demo has no labels.*--dataset"):
        score_files.compute_scores(config)
    assert not config.directory.exists()


def test_too_little_memory_is_refused_before_anything_is_computed(config, monkeypatch):
    monkeypatch.setattr(margin_influence, "_STRIP_ARRAYS", 1 << 24)
    with pytest.raises(errors.InvalidValueError, match="raise --memory_limit_mb"):
        score_files.compute_scores(config)
    assert not config.directory.exists()


def test_matrices_need_room(config, monkeypatch):
    asked = []

    def refuse(directory, size, what, repair):
        asked.append(size)
        if "margins" in what:
            raise errors.DiskSpaceError("full")

    monkeypatch.setattr(optional_files.files, "check_room", refuse)
    with pytest.raises(errors.DiskSpaceError):
        score_files.compute_scores(config)
    assert asked[-1] == 4 * N * M * 4
    monkeypatch.undo()
    score_files.compute_scores(config)
    optional_files.check_disk(
        config,
        run_table.read(layout.run_table_path(config.zoo, "demo")),
        RATIOS,
        score_files.load_scores(config.directory).provenance,
        0,
    )


def test_what_killed_computations_of_other_ratios_left_goes(config):
    left = config.directory / ".margin_influence-0.5.parts"
    left.mkdir(parents=True)
    (config.directory / ".margin_influence-0.5.npy.part").write_bytes(b"0")
    score_files.compute_scores(config)
    assert not [path.name for path in config.directory.iterdir() if path.name.startswith(".")]


def test_memorization_and_profile_of_every_ratio_are_in_the_table(tmp_path):
    """What `consistency.npz` and the files of the ratios hold, row by row."""
    directory = scored_zoos.write(tmp_path, range(9))
    rows = pyarrow.parquet.read_table(directory / "examples.parquet").to_pydict()
    saved = score_files.load_scores(directory)
    for part, ratio in enumerate((0.3, 0.7)):
        place = slice(part * scored_zoos.N, (part + 1) * scored_zoos.N)
        assert set(rows["subset_ratio"][place]) == {ratio}
        np.testing.assert_array_equal(rows["memorization"][place], saved.ratios[ratio].memorization.values)
        np.testing.assert_array_equal(rows["accuracy_heldout"][place], saved.consistency.profile[part])
        np.testing.assert_array_equal(rows["num_heldout"][place], saved.consistency.num_heldout[part])
