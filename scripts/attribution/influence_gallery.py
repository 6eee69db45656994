"""The page of images of `compute_influence_functions`: which training images help and harm which test image."""

import numpy as np
import tensorflow as tf

from estimators import score_matrix
from heldout.datasets import dataset as dataset_lib
from heldout.report import attribution_page
from scripts.attribution import influence_config, model_sources


def can_show(model: model_sources.Loaded) -> bool:
    """Whether there are images that can be drawn."""
    return model.pictures is not None and model.pictures.image_shape[2] in (1, 3)


def page(
    config: influence_config.InfluenceConfig, model: model_sources.Loaded, matrix: score_matrix.ScoreMatrix
) -> str:
    """The page, of the first `num_shown` test examples.

    Args:
        config: how many examples to show.
        model: with its data set.
        matrix: the scores; ids are original indices.
    """
    data = model.pictures
    assert data is not None
    direction = "falls" if matrix.lower_is_better else "rises"
    quantity = (
        f"By how much the {config.measured} of a test example {direction}, as this estimate has it, because the "
        "training example was trained on: what helps on the left, what harms on the right."
    )
    facts = attribution_page.Facts(
        str(model.description["model"]), matrix.method, quantity, matrix.num_train, matrix.num_test
    )
    num_shown = min(matrix.num_test, config.num_shown)
    predicted = _predicted(model, data, matrix.test_ids[:num_shown])
    stories = [_story(data, matrix, column, config, predicted[column]) for column in range(num_shown)]
    return attribution_page.build(data, facts, stories)


def _predicted(model: model_sources.Loaded, data: dataset_lib.Dataset, test_ids: np.ndarray) -> list[int | None]:
    """The classes that are predicted of test examples; None where there is no choice between classes."""
    outputs = np.asarray(model.target.predict(tf.convert_to_tensor(data.test.images[test_ids])))
    if outputs.ndim != 2 or outputs.shape[1] != data.num_classes or data.num_classes < 2:
        return [None] * len(test_ids)
    return [int(label) for label in np.argmax(outputs, axis=1)]


def _story(
    data: dataset_lib.Dataset,
    matrix: score_matrix.ScoreMatrix,
    column: int,
    config: influence_config.InfluenceConfig,
    predicted: int | None,
) -> attribution_page.Story:
    influence = matrix.helpfulness(column)

    def effects(order: np.ndarray, sign: float) -> tuple[attribution_page.Effect, ...]:
        chosen = [row for row in order[: config.num_neighbours] if sign * influence[row] > 0]
        ids = [int(matrix.train_ids[row]) for row in chosen]
        return tuple(
            attribution_page.Effect(i, int(data.train.label[i]), float(influence[row]))
            for i, row in zip(ids, chosen, strict=True)
        )

    test_id = int(matrix.test_ids[column])
    return attribution_page.Story(
        test_id,
        int(data.test.label[test_id]),
        predicted,
        effects(matrix.helpful(column), 1.0),
        effects(matrix.harmful(column), -1.0),
    )
