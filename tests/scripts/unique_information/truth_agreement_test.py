"""Scores beside the truth: hand-made scores of known correlation, missing ones, tables, pictures, refusals."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from heldout.training import leave_out_files
from scripts.unique_information import truth_agreement, truth_figure
from zoo import errors

_NUMBER = 40


def effects(groups=None):
    generator = np.random.default_rng(0)
    groups = tuple((int(one),) for one in range(100, 100 + 3 * _NUMBER, 3)) if groups is None else groups
    number = len(groups)
    return leave_out_files.Effects(
        groups=groups,
        squared_weight_change=generator.lognormal(size=number),
        squared_prediction_change=generator.lognormal(size=number),
        squared_train_prediction_change=generator.lognormal(size=number),
        self_effect=generator.normal(size=(number, 2)).astype(np.float32),
        prediction_change=generator.normal(size=(number, 5, 2)).astype(np.float32),
    )


@pytest.fixture
def truth(tmp_path):
    found = effects()
    leave_out_files.write_effects(tmp_path / leave_out_files.GROUND_TRUTH_NAME, found, "x")
    return tmp_path, found


def write_scores(folder, truth, **columns):
    path = folder / "scores.npz"
    np.savez(path, train_index=truth.train_index, **columns)
    return str(path)


def config(folder, scores, **members):
    return truth_agreement.AgreementConfig(str(folder), (scores,), str(folder / "out"), **members)


def test_correlations_of_known_scores(truth):
    folder, found = truth
    weights, predictions = found.squared_weight_change, found.squared_prediction_change
    centred = (weights - weights.mean()) / weights.std()
    noise = np.random.default_rng(1).normal(size=_NUMBER)
    noise -= noise.mean() + centred * np.mean(noise * centred)
    columns = {
        "scaled": 3 * weights,
        "falling": -weights,
        "ranks": np.log(predictions),
        "made": 0.6 * centred + 0.8 * noise / noise.std(),  # Pearson 0.6 by construction
    }
    asked = config(folder, write_scores(folder, found, **columns), quantities=truth_agreement.QUANTITIES)
    of = {(one.column, one.quantity): one for one in truth_agreement.compare(asked)}
    assert len(of) == 16
    by_weights = {name: of[name, "squared_weight_change"].found for name in columns}
    assert by_weights["scaled"].pearson.value == pytest.approx(1)
    assert by_weights["falling"].spearman.value == pytest.approx(-1)
    assert by_weights["made"].pearson.value == pytest.approx(0.6)
    assert by_weights["made"].pearson.low < 0.6 < by_weights["made"].pearson.high
    ranked = of["ranks", "squared_prediction_change"].found
    assert ranked.spearman.value == pytest.approx(1)
    assert ranked.pearson.value == pytest.approx(stats.pearsonr(np.log(predictions), predictions)[0])
    own = np.sum(found.self_effect.astype(np.float64) ** 2, axis=1)
    np.testing.assert_array_equal(of["made", "squared_self_effect"].truth, own)


def test_overlap_of_the_highest(truth):
    folder, found = truth
    score = found.squared_weight_change.copy()
    highest = np.argsort(-score)
    score[highest[:2]] = -1  # two of the ten highest fall out
    asked = config(folder, write_scores(folder, found, score=score), top=(0.25,))
    (one, _) = truth_agreement.compare(asked)
    assert (one.overlaps[0.25].num_first, one.overlaps[0.25].num_both) == (10, 8)
    assert one.row()["top_0.25_overlap"] == pytest.approx(0.8)


def test_examples_without_a_score_are_counted_and_others_do_not_matter(truth):
    folder, found = truth
    index = np.append(found.train_index[::-1][:30], 99_999)
    weights = np.append(found.squared_weight_change[::-1][:30], 1e9)
    np.savez(folder / "part.npz", train_index=index, weights=weights)
    (one, _) = truth_agreement.compare(config(folder, str(folder / "part.npz")))
    assert (one.found.num_examples, one.found.num_first_only) == (30, 10)
    assert one.found.pearson.value == pytest.approx(1)
    assert "10 without a score" in "\n".join(truth_agreement.lines([one]))


def test_tables_and_pictures(truth):
    folder, found = truth
    scores = write_scores(folder, found, weights=found.squared_weight_change, constant=np.zeros(_NUMBER))
    asked = config(folder, scores)
    compared = truth_agreement.compare(asked)
    truth_agreement.check_outdir(asked, overwrite=False)
    truth_agreement.write(asked, compared)
    pictures = truth_figure.write(folder / "out", compared)
    assert [path.name for path in pictures][:2] == [
        "scatter_scores_weights_squared_weight_change.png",
        "scatter_scores_weights_squared_prediction_change.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    stored = json.loads((folder / "out" / truth_agreement.RESULTS_NAME).read_text())
    assert stored["rows"][0]["pearson"] == pytest.approx(1)
    assert stored["rows"][2]["pearson"] is None  # of a constant there is none
    with open(folder / "out" / truth_agreement.TABLE_NAME, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4
    assert float(rows[0]["spearman"]) == pytest.approx(1)
    assert rows[2]["pearson"] == "nan"
    # The same again is no other comparison; another one is, unless it may replace it.
    truth_agreement.check_outdir(asked, overwrite=False)
    other = dataclasses.replace(asked, seed=1)
    with pytest.raises(errors.MismatchError, match=r"(?s)seed: stored 0, asked for 1.*--overwrite"):
        truth_agreement.check_outdir(other, overwrite=False)
    truth_agreement.check_outdir(other, overwrite=True)


def test_scores_of_examples_in_another_order_are_refused(truth):
    folder, found = truth
    labels = np.arange(_NUMBER) % 2
    members = {"train_index": found.train_index, "train_label": labels, "clean_train_label": labels}
    np.savez(folder / leave_out_files.FULL_RUN_NAME, **members)
    weights = found.squared_weight_change
    scores = write_scores(folder, found, weights=weights, train_label=labels)
    for place in (folder, folder / leave_out_files.GROUND_TRUTH_NAME):
        compared = truth_agreement.compare(config(place, scores))
        assert compared[0].found.pearson.value == pytest.approx(1)
    order = np.random.default_rng(0).permutation(_NUMBER)
    np.savez(folder / "shuffled.npz", train_index=found.train_index[order], weights=weights, train_label=labels)
    with pytest.raises(errors.MismatchError, match=r"shuffled.npz: its labels are not those of .*full_run.npz"):
        truth_agreement.compare(config(folder, str(folder / "shuffled.npz")))


def test_what_cannot_be_compared_is_refused(truth):
    folder, found = truth
    scores = write_scores(folder, found, weights=found.squared_weight_change)
    with pytest.raises(errors.InvalidValueError, match="--quantities=weights: expected some of squared_weight_change"):
        config(folder, scores, quantities=("weights",))
    with pytest.raises(errors.InvalidValueError, match="--top=0: expected shares above 0"):
        config(folder, scores, top=(0,))
    with pytest.raises(errors.InvalidValueError, match="names a file twice"):
        truth_agreement.AgreementConfig(str(folder), (scores, scores), "out")
    with pytest.raises(errors.InvalidValueError, match="--columns=other: no file of --scores has other"):
        truth_agreement.compare(config(folder, scores, columns=("other",)))
    np.savez(folder / "strangers.npz", train_index=np.arange(3), weights=np.zeros(3))
    with pytest.raises(errors.InvalidValueError, match="has a score of none of the 40 examples"):
        truth_agreement.compare(config(folder, str(folder / "strangers.npz")))
    leave_out_files.write_effects(folder / leave_out_files.GROUND_TRUTH_NAME, effects(((1, 2), (3,))), "x")
    with pytest.raises(errors.InvalidValueError, match="holds groups of several examples"):
        truth_agreement.compare(config(folder, scores))
