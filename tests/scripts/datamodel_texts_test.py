"""What is said of datamodels."""

import math

import numpy as np

from heldout.scoring import datamodels
from scripts import datamodel_texts


def model(num_weights, r2, score=math.nan):
    return datamodels.Datamodel(
        intercept=0.0,
        train_index=np.arange(num_weights),
        weight=np.ones(num_weights),
        penalty=0.1,
        is_least=False,
        num_runs=9,
        relative_gap=0.0,
        held_out_r2=r2,
        held_out_correlation=score,
        linear_datamodeling_score=score,
        num_scored_folds=0 if math.isnan(score) else 3,
    )


def test_medians_are_of_those_with_weights_and_the_share_of_all_that_vary():
    models = [model(3, 0.4, 0.6), model(5, 0.2, 0.5), model(1, -0.3, -0.2), model(0, -0.01), model(0, math.nan)]
    assert datamodel_texts.description(models).splitlines() == [
        "median over those with weights: 3, held-out R^2 0.20, linear datamodeling score 0.50",
        "predicted better than by the mean of other runs: 2 of 4 whose output varies",
    ]


def test_too_few_runs_are_said_to_be():
    few = [model(2, 0.1), model(1, -0.1), model(0, -0.2)]
    median, share, note = datamodel_texts.description(few).splitlines()
    assert median.endswith("held-out R^2 0.00, linear datamodeling score nan")
    assert share.endswith("1 of 3 whose output varies")
    assert note.startswith("note: for most targets these runs are too few")
