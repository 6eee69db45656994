"""TracIn (Pruthi et al., 2020, equation 1): what the steps on a training example did, summed over checkpoints.

    score[i, t] = -sum_k eta_k g_i(theta_k) . grad m_t(theta_k)

with eta_k the learning rate at checkpoint k: to first order, what steps on example i alone would have added to the
measured output m_t. Positive raises what is measured; for the loss it is the negative of the published TracInCP. A
training of batches takes eta_k / batch size for each example, and as many steps between checkpoints as there are: give
learning rates with these factors where the unit matters. Of the last layer alone: `target.restricted`.

    tracin.scores(target, train, test, tracin.loaded(load, learning_rates))
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from estimators import errors, examples, gradient_products, gradient_similarity, score_matrix
from estimators import targets as targets_lib


def loaded(load: Callable[[int], Any], learning_rates: Sequence[float]) -> Iterator[float]:
    """Checkpoints as `scores` takes them.

    Args:
        load: called with 0, 1, ..., sets the weights of that checkpoint in the target's own variables.
        learning_rates: one for each checkpoint.

    Yields:
        The learning rate of each checkpoint, once its weights are set.
    """
    for number, rate in enumerate(learning_rates):
        load(number)
        yield float(rate)


def scores(
    target: targets_lib.Target,
    train: Any,
    test: Any,
    checkpoints: Iterable[float],
    of: str = "loss",
    *,
    batch_size: int = 256,
    memory_limit_mb: float = 2048.0,
    out: np.ndarray | None = None,
    progress: gradient_products.Progress = gradient_products.no_progress,
) -> score_matrix.ScoreMatrix:
    """score[i, t] = -sum_k eta_k g_i(theta_k) . grad m_t(theta_k); see the module.

    Args:
        target: what is differentiated.
        train: training examples.
        test: test examples.
        checkpoints: yields learning rates and sets the weights before each, see `loaded`. The target keeps the weights
            of the last.
        of: what of the test examples is predicted, "loss" or "measured".
        batch_size: training examples, and test examples, at a time.
        memory_limit_mb: of gradients that are formed.
        out: [num_train, num_test] floats to fill, such as a memory map; None for a new array.
        progress: called with (tiles done, all) of each checkpoint.

    Returns:
        The scores, in units of what is measured. At each checkpoint the cost is that of `gradient_similarity.dot`.

    Raises:
        InvalidArgumentError: there is no checkpoint, or a learning rate is no number from 0 up.
        NotFiniteError: a gradient is no number.
    """
    train, test = examples.of(train), examples.of(test)
    measured = gradient_products.measured_name(target, of)
    values = score_matrix.output_array(out, len(train), len(test), target.dtype.as_numpy_dtype)
    values[...] = 0.0
    products, rates = None, []
    for rate in checkpoints:
        rates.append(_checked(rate))
        products = products or gradient_similarity.Products(
            target, train, test, of, batch_size=batch_size, memory_limit_mb=memory_limit_mb
        )

        def add(rows: slice, columns: slice, tile: np.ndarray, rate: float = rates[-1]) -> None:
            values[rows, columns] -= rate * tile

        products.tiles(add, progress)
    _check_some(rates)
    return score_matrix.ScoreMatrix(
        values,
        train.ids,
        test.ids,
        method="TracIn",
        quantity=f"steps on the training example raised the {measured} of the test example",
        unit=measured,
        lower_is_better=measured == "loss",
        config={"of": of, "measured": target.measured_name, "loss": target.loss.name, "learning_rates": rates},
    )


def self_scores(
    target: targets_lib.Target,
    train: Any,
    checkpoints: Iterable[float],
    *,
    batch_size: int = 256,
    memory_limit_mb: float = 2048.0,
) -> np.ndarray:
    """[num_train], sum_k eta_k |g_i(theta_k)|^2 >= 0: how far steps on an example lowered its own loss.

    Args:
        target: what is differentiated.
        train: training examples.
        checkpoints: see `scores`.
        batch_size: examples at a time.
        memory_limit_mb: of gradients that are formed.

    Returns:
        The scores, in units of the loss; one pass over the examples for each checkpoint.

    Raises:
        See `scores`.
    """
    train = examples.of(train)
    total, products, rates = np.zeros(len(train)), None, []
    for rate in checkpoints:
        rates.append(_checked(rate))
        products = products or gradient_similarity.Products(
            target, train, train, "loss", batch_size=batch_size, memory_limit_mb=memory_limit_mb
        )
        total += rates[-1] * products.squared_norms(train, "loss")
    _check_some(rates)
    return total


def _checked(rate: float) -> float:
    if not (np.isfinite(rate) and rate >= 0):
        raise errors.InvalidArgumentError(f"learning rate {rate} of a checkpoint: must be a number from 0 up")
    return float(rate)


def _check_some(rates: list[float]) -> None:
    if not rates:
        raise errors.InvalidArgumentError("no checkpoints: at least one learning rate is needed")
