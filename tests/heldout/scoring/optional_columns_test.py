"""The columns of the examples table that are asked for."""

import dataclasses

import numpy as np
import pyarrow.parquet
import pytest

from heldout.evaluation import margins as margins_lib
from heldout.scoring import margin_scores, score_files, scores, shrinkage
from zoo import aux_arrays, errors, layout, run_table

N, M, RATIOS = 40, 9, (0.3, 0.7)


def write_runs(zoo, with_margins):
    for ratio in RATIOS:
        for run_id in range(12):
            generator = np.random.default_rng([int(10 * ratio), run_id])
            mask = np.isin(np.arange(N), generator.permutation(N)[: int(ratio * N)])
            train = generator.random(N) < np.where(mask, 0.95, 0.6)
            margin = (np.where(train, 2.0, -1.0) + generator.normal(size=N)).astype(np.float16)
            run = layout.Run(zoo, "demo", ratio, run_id)
            pair = (margin, np.zeros(M, np.float16)) if with_margins else None
            aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(mask, train, generator.random(M) < 0.5, pair))


def examples(config):
    directory = score_files.compute_scores(config).directory
    return pyarrow.parquet.read_table(directory / "examples.parquet").to_pydict()


@pytest.fixture
def config(tmp_path):
    write_runs(tmp_path, with_margins=True)
    return score_files.ScoreConfig(str(tmp_path), "demo", num_draws=5)


def test_nothing_more_unless_asked_for(config):
    assert not [name for name in examples(config) if "shrunk" in name or "margin" in name]


def test_shrunk_memorization(config):
    found = examples(dataclasses.replace(config, shrinkage=True))
    table = run_table.read(layout.run_table_path(config.zoo, "demo"))
    for part, ratio in enumerate(RATIOS):
        expected = shrinkage.shrink(scores.count_sides(table, ratio))
        rows = slice(part * N, (part + 1) * N)
        np.testing.assert_array_equal(found["memorization_shrunk"][rows], expected.posterior_mean)
        np.testing.assert_array_equal(found["memorization_shrunk_sd"][rows], expected.posterior_sd)
        np.testing.assert_array_equal(found["memorization_false_sign_rate"][rows], expected.local_false_sign_rate)
    assert np.nanstd(found["memorization_shrunk"]) < np.nanstd(found["memorization"])


def test_margins(config):
    found = examples(dataclasses.replace(config, margins=True))
    table = run_table.read(layout.run_table_path(config.zoo, "demo"))
    margin, _ = margins_lib.collect(config.zoo, "demo")
    expected = margin_scores.memorization_margin(table, margin, 0.7)
    np.testing.assert_array_equal(found["memorization_margin"][N:], expected.values)
    np.testing.assert_array_equal(found["memorization_margin_standard_error"][N:], expected.standard_error)
    heldout = margin_scores.consistency_margin(table, margin, [0.3])
    np.testing.assert_array_equal(found["heldout_margin"][:N], heldout.profile[0])


def test_margins_that_are_not_there_are_refused(tmp_path):
    write_runs(tmp_path, with_margins=False)
    config = score_files.ScoreConfig(str(tmp_path), "demo", num_draws=5, margins=True)
    with pytest.raises(errors.InvalidValueError, match=r"--margins: .*; train_runs --margins keeps them, or leave"):
        score_files.compute_scores(config)


def test_without_a_side_there_is_nothing_to_shrink_to(tmp_path):
    run = layout.Run(tmp_path, "demo", 0.3, 0)
    mask = np.arange(N) < 12
    aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(mask, mask, np.ones(M, bool)))
    found = examples(score_files.ScoreConfig(str(tmp_path), "demo", num_draws=2, shrinkage=True))
    assert np.isnan(found["memorization_shrunk"]).all()
