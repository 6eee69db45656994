"""Datamodels: what a run puts out on one example, as a sparse linear function of what it was trained on.

After Ilyas, Park, Engstrom, Leclerc & Madry (2022). For one target example with outputs y [T] over the runs of one
subset ratio, and the subset masks A [T, N] as 0 and 1,

    y_t  is predicted as  b + sum over k of A_tk w_k,

b and w from the lasso of `heldout.scoring.datamodel_path`, its penalty chosen by cross-validation over runs. A weight
w_k > 0 says that training on example k raises the output on the target, as subset influence does; its unit is that of
the output: a margin (Park et al. 2023), or correctness, 0 or 1.

How weights relate to subset influence. With y the correctness on a test example, subset influence is the difference of
two means, and so exactly the slope of y on column k alone, a regression on one example at a time. The weights come from
one regression on all examples together. Where the columns are uncorrelated, as over all subsets there are, a weight is
the subset influence moved towards 0 by l / (p (1 - p)), with l the penalty and p the share of the runs that were
trained on k, and 0 where that would pass 0. With fewer runs chance correlations between columns, which enter every
difference of means as noise, are in part explained away; the price is the shrinkage. Of a target that is itself a
training example, the weight on itself stands to memorization as the others do to subset influence.

How good a datamodel is, is asked of runs that it was not fitted to: those of each fold, predicted from the others, at
the penalty that is best on the other folds.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import contextlib
import dataclasses

import numpy as np

from heldout.scoring import datamodel_path
from zoo import errors


@dataclasses.dataclass(frozen=True)
class Options:
    """How datamodels are fitted.

    Attributes:
        num_lambdas: L, penalties on the path.
        lambda_ratio: the smallest penalty over the largest, in (0, 1); the largest is the least that makes all
            weights 0.
        num_folds: K, parts of the runs for cross-validation.
        tolerance: duality gap over the sum of squares of the centred output, as `tol` of scikit-learn's Lasso,
            whose default it is.
    """

    num_lambdas: int = 100
    lambda_ratio: float = 0.01
    num_folds: int = 5
    tolerance: float = 1e-4


@dataclasses.dataclass(frozen=True)
class Datamodel:
    """The linear model of one target.

    Attributes:
        intercept: b, in units of the output.
        train_index: int64, ascending, examples whose weight is not 0.
        weight: float64, their weights; positive: training on the example raises the output.
        penalty: l, chosen by cross-validation; NaN where the output is the same in all runs, and no weight exists.
        is_least: whether that is the smallest penalty of the path, so that a smaller one might be better.
        num_runs: T, runs behind it.
        relative_gap: duality gap of the final fit; above the tolerance only where that could not be reached.
        held_out_r2: 1 - (squared error on held-out runs) / (that of predicting the mean of the runs of the fit), at
            most 1, and below 0 where the mean is the better prediction; NaN where the output never varies.
        held_out_correlation: correlation of predicted and observed output over the held-out runs of a fold, mean over
            folds; NaN where no fold has one.
        linear_datamodeling_score: the same with ranks (Spearman), as Park et al. (2023) score attributions.
        num_scored_folds: folds behind these two; in the others prediction or output is constant.
    """

    intercept: float
    train_index: np.ndarray
    weight: np.ndarray
    penalty: float
    is_least: bool
    num_runs: int
    relative_gap: float
    held_out_r2: float
    held_out_correlation: float
    linear_datamodeling_score: float
    num_scored_folds: int


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """Errors on held-out runs along the path.

    Attributes:
        penalties: float64 [L], falling.
        squared_error: float64 [K, L], mean over the runs of a fold, each predicted from the other folds.
        prediction: K arrays float64 [L, runs of the fold].
        best: index of the penalty whose error, averaged over the folds, is least; the larger penalty of equals.
    """

    penalties: np.ndarray
    squared_error: np.ndarray
    prediction: tuple[np.ndarray, ...]
    best: int


def check(options: Options) -> None:
    """Refuses options that cannot be meant.

    Raises:
        InvalidValueError: one is out of range; the message names it.
    """
    if options.num_lambdas < 2:
        raise errors.InvalidValueError(f"num_lambdas: got {options.num_lambdas}, expected at least 2")
    if options.num_folds < 2:
        raise errors.InvalidValueError(f"num_folds: got {options.num_folds}, expected at least 2")
    if not 0 < options.lambda_ratio < 1:
        raise errors.InvalidValueError(
            f"lambda_ratio: got {options.lambda_ratio}, expected a number above 0 and below 1"
        )
    if not 1e-13 <= options.tolerance <= 0.01:
        raise errors.InvalidValueError(f"tolerance: got {options.tolerance}, expected a number from 1e-13 to 0.01")


def folds(num_runs: int, num_folds: int) -> np.ndarray:
    """The fold of each run, int64 [T], 0..K-1: consecutive runs, sizes that differ by at most one, larger ones first.

    The subsets of runs are independent, so neighbours share nothing; scikit-learn's KFold divides in the same way.

    Raises:
        InvalidValueError: a fold would have fewer than 2 runs.
    """
    if num_runs < 2 * num_folds:
        raise errors.InvalidValueError(
            f"num_folds: {num_folds} folds need {2 * num_folds} runs with outputs, there are {num_runs}; "
            "train more runs, or use fewer folds"
        )
    return np.repeat(np.arange(num_folds), [len(part) for part in np.array_split(np.arange(num_runs), num_folds)])


def cross_validate(masks: datamodel_path.Design, output: np.ndarray, options: Options) -> CrossValidation:
    """Fits the path to all folds but one, for each fold, and predicts that one.

    Args:
        masks: T runs.
        output: float64 [T], not all equal.
        options: how.

    Raises:
        InvalidValueError: there are too few runs for the folds.
    """
    penalties = datamodel_path.penalties(
        datamodel_path.largest_penalty(masks, output), options.num_lambdas, options.lambda_ratio
    )
    fold = folds(masks.num_runs, options.num_folds)
    predictions, squared_errors = [], []
    for number in range(options.num_folds):
        left_out = fold == number
        fit = datamodel_path.fit_path(masks, output, penalties, in_fit=~left_out, tolerance=options.tolerance)
        predictions.append(fit.prediction[:, left_out])
        squared_errors.append(np.mean((predictions[-1] - output[left_out]) ** 2, axis=1))
    squared_error = np.stack(squared_errors)
    best = int(np.argmin(np.mean(squared_error, axis=0)))
    return CrossValidation(penalties, squared_error, tuple(predictions), best)


def fit(masks: datamodel_path.Design, output: np.ndarray, options: Options) -> Datamodel:
    """The datamodel of one target.

    Args:
        masks: T runs on N training examples.
        output: float64 [T], what each run put out on the target, finite.
        options: how.

    Returns:
        A Datamodel; without weights, and with NaN for penalty and scores, where all outputs are equal.

    Raises:
        InvalidValueError: there are too few runs for the folds, or an output is not finite.

    Cost: K + 1 paths, see `datamodel_path.fit_path`, and 8 L T bytes.
    """
    output = np.asarray(output, np.float64)
    if output.shape != (masks.num_runs,) or not np.all(np.isfinite(output)):
        raise errors.InvalidValueError(
            f"output has shape {output.shape} and {np.sum(~np.isfinite(output))} values that are not finite, expected "
            f"{masks.num_runs} finite numbers, one for each run; leave out the runs without one"
        )
    folds(masks.num_runs, options.num_folds)
    if np.ptp(output) == 0 or datamodel_path.largest_penalty(masks, output) == 0:
        return _constant(output)
    validation = cross_validate(masks, output, options)
    path = datamodel_path.fit_path(
        masks, output, validation.penalties[: validation.best + 1], tolerance=options.tolerance
    )
    r2, correlation, rank_correlation, num_scored = _held_out_scores(output, validation)
    return Datamodel(
        intercept=float(path.intercept[-1]),
        train_index=path.train_index[-1],
        weight=path.weight[-1],
        penalty=float(validation.penalties[validation.best]),
        is_least=validation.best == len(validation.penalties) - 1,
        num_runs=masks.num_runs,
        relative_gap=float(path.relative_gap[-1]),
        held_out_r2=r2,
        held_out_correlation=correlation,
        linear_datamodeling_score=rank_correlation,
        num_scored_folds=num_scored,
    )


def _constant(output: np.ndarray) -> Datamodel:
    """The datamodel of an output that never varies, or that no column goes with: its mean."""
    nan = float("nan")
    return Datamodel(
        intercept=float(np.mean(output)),
        train_index=np.zeros(0, np.int64),
        weight=np.zeros(0),
        penalty=nan,
        is_least=False,
        num_runs=len(output),
        relative_gap=0.0,
        held_out_r2=nan,
        held_out_correlation=nan,
        linear_datamodeling_score=nan,
        num_scored_folds=0,
    )


def _held_out_scores(output: np.ndarray, validation: CrossValidation) -> tuple[float, float, float, int]:
    """R^2, correlation, rank correlation, and the number of folds behind the two correlations."""
    import scipy.stats  # heavy, and needed once the fits are done

    num_folds = len(validation.prediction)
    fold = folds(len(output), num_folds)
    squared, squared_of_mean, correlations, rank_correlations = 0.0, 0.0, [], []
    for number, predictions in enumerate(validation.prediction):
        # A penalty chosen with this fold's own errors would flatter it.
        others = np.delete(validation.squared_error, number, axis=0)
        predicted, observed = predictions[np.argmin(np.mean(others, axis=0))], output[fold == number]
        squared += float(np.sum((observed - predicted) ** 2))
        squared_of_mean += float(np.sum((observed - np.mean(output[fold != number])) ** 2))
        if np.ptp(predicted) > 0 and np.ptp(observed) > 0:
            correlations.append(float(np.corrcoef(predicted, observed)[0, 1]))
            ranks = scipy.stats.rankdata(predicted), scipy.stats.rankdata(observed)
            rank_correlations.append(float(np.corrcoef(*ranks)[0, 1]))
    r2 = 1 - squared / squared_of_mean if squared_of_mean else float("nan")
    return r2, _mean(correlations), _mean(rank_correlations), len(correlations)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def fit_all(
    masks: datamodel_path.Design,
    outputs: np.ndarray,
    options: Options,
    *,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[Datamodel]:
    """The datamodels of several targets. The result does not depend on the number of threads.

    Args:
        masks: T runs.
        outputs: float [T, J], one column a target, finite.
        options: how.
        threads: targets fitted at a time.
        progress: called with the number of targets done, in this thread.

    Raises:
        InvalidValueError: as `fit`, or an option is out of range.
    """
    check(options)
    done = []
    with _pool(threads) as pool:
        waiting = [pool.submit(fit, masks, column, options) for column in np.asarray(outputs).T]
        for future in waiting:
            done.append(future.result())
            if progress is not None:
                progress(len(done))
    return done


@contextlib.contextmanager
def _pool(threads: int) -> Iterator[futures.Executor]:
    """Threads that, when something goes wrong, finish what they have begun and begin nothing more."""
    pool = futures.ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
