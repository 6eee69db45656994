"""Mean subset influence of every training class on every test class, without the matrix of all pairs.

Subset influence (Feldman & Zhang 2020) of training example i on test example j is linear in what the runs got right:
with A the subset masks [T, N], C the test correctness [T, M], n1 and n0 the runs that trained on i and held it out,

    subset_influence[i, j] = sum over t of w[t, i] C[t, j],    w[t, i] = A[t, i] / n1[i] - (1 - A[t, i]) / n0[i].

So the mean over the N_a training examples of class a and the M_b test examples of class b needs sums by class alone,

    mean[a, b] = sum over t of x[t, a] r[t, b],    x[t, a] = mean over i in a of w[t, i],
                                                   r[t, b] = share of the test examples of b that run t got right,

for T N + T M bits and T K^2 multiplications: seconds at the size of ImageNet, whose matrix would take 256 GB.

The standard error takes runs as what is random: pairs share their runs, and are nothing like N_a M_b independent
values. The mean is a sum over runs of g[t] = x[t, a] (r[t, b] - mean of r over runs), as x sums to 0, so

    standard_error^2 = T / (T - 1) (sum over t of g[t]^2 - mean^2 / T),

with the counts n1 and n0 taken as given, as in the standard error of a single influence.

What it compares. Subsets of one experiment have one size, so an example that is in takes the place of others: the
influence of all training examples on one test example adds up to 0, but for unequal counts. A positive mean says that a
class helps more than an average example does, a negative one that it helps less, or harms. And x[t, a] is, but for
unequal counts, how many more examples of class a than expected run t was trained on. Where subsets hold the same share
of every class (`--subset_sampling=class_balanced`) that does not vary, and the means are noise about 0.
"""

from collections.abc import Mapping
import concurrent.futures
import dataclasses

import numpy as np

from heldout import compiling
from heldout.running import workers
from heldout.scoring import influence_matrix, saved_scores
from zoo import errors, files, layout, npz, run_table

# Examples whose labels and weights stay in a near cache while one run after the other passes over them.
_STEP = 8192
_FIELDS = ("mean", "standard_error", "num_train", "num_undefined", "num_test")


@dataclasses.dataclass(frozen=True)
class ClassMeans:
    """Mean subset influence by class of the training example (row) and of the test example (column), K classes.

    Attributes:
        mean: float64 [K, K] in [-1, 1]; NaN where there is no pair with a value. Positive: the class helps.
        standard_error: float64 [K, K], from the spread over runs; NaN where the mean is, or with a single run; 0 where
            all runs get the same share of the test class right, which does not mean that the mean is exact.
        num_train: int64 [K], training examples of each class that have an influence.
        num_undefined: int64 [K], those that have none, as all runs trained on them or none did; they are left out.
        num_test: int64 [K], test examples of each class.
        num_runs: T, runs behind the means.
    """

    mean: np.ndarray
    standard_error: np.ndarray
    num_train: np.ndarray
    num_undefined: np.ndarray
    num_test: np.ndarray
    num_runs: int

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.mean)

    @property
    def num_pairs(self) -> np.ndarray:
        """Pairs behind each mean: int64 [K, K]."""
        return np.multiply.outer(self.num_train, self.num_test)


def file_name(subset_ratio: float) -> str:
    """File name of the class means of one ratio."""
    return f"cross_class-{layout.ratio_name(subset_ratio)}.npz"


def check_labels(table: run_table.RunTable) -> None:
    """Refuses a table without labels.

    Raises:
        InvalidValueError: there are none, or one is negative.
    """
    if table.train_label is None or table.test_label is None:
        raise errors.InvalidValueError(
            f"--cross_class: {table.experiment} has no labels, so there are no classes to compare; name its data set "
            "with --dataset, or leave the flag out"
        )
    least = min(int(table.train_label.min(initial=0)), int(table.test_label.min(initial=0)))
    if least < 0:
        raise errors.InvalidValueError(
            f"--cross_class: labels of {table.experiment}: got {least}, expected 0 or more; leave the flag out"
        )


def of_runs(runs: run_table.RunTable) -> ClassMeans:
    """Mean subset influence between all classes.

    Args:
        runs: T runs of one ratio, with labels in 0..K-1; K is one more than the largest.

    Returns:
        A ClassMeans.

    Raises:
        InvalidValueError: the table has no labels, or too many runs.

    Cost: T (N + M) bits looked at, T K^2 multiplications, 16 T K bytes.
    """
    check_labels(runs)
    assert runs.train_label is not None
    assert runs.test_label is not None
    num_classes = 1 + max(int(label.max(initial=-1)) for label in (runs.train_label, runs.test_label))
    sides = influence_matrix.sides_of(runs)
    known = sides.support > 0
    num_train = np.bincount(runs.train_label[known], minlength=num_classes)
    num_test = np.bincount(runs.test_label, minlength=num_classes)
    share_in, share_out = (np.where(known, 1 / np.maximum(side, 1), 0) for side in (sides.num_in, sides.num_heldout))
    weight = class_sums(runs.subset_mask_bits, runs.train_label, share_in + share_out, num_classes)
    weight -= np.bincount(runs.train_label, share_out, num_classes)
    right = class_sums(runs.test_correctness_bits, runs.test_label, np.ones(runs.num_test), num_classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight /= num_train
        right /= num_test
        right -= right.mean(axis=0)
        mean = weight.T @ right
        square = np.square(weight).T @ np.square(right) - mean**2 / runs.num_runs
        # Rounding can leave the spread of equal shares a little below 0.
        error = np.sqrt(np.maximum(square, 0) * np.divide(runs.num_runs, runs.num_runs - 1))
    error[np.isnan(mean)] = np.nan
    num_undefined = np.bincount(runs.train_label[~known], minlength=num_classes)
    return ClassMeans(mean, error, num_train, num_undefined, num_test, runs.num_runs)


def class_sums(bits: np.ndarray, label: np.ndarray, weight: np.ndarray, num_classes: int) -> np.ndarray:
    """For every run the sum of the weights of the examples whose bit is set, class by class.

    Args:
        bits: uint8 [T, ceil(n / 8)], a bit matrix of a run table.
        label: integers [n] in 0..K-1.
        weight: floats [n], finite.
        num_classes: K.

    Returns:
        float64 [T, K]. It does not depend on the number of threads.
    """
    sums = np.zeros((len(bits), num_classes))
    label, weight = np.ascontiguousarray(label, np.int64), np.ascontiguousarray(weight, np.float64)
    num_threads = workers.num_cores()
    bounds = np.linspace(0, len(bits), num_threads + 1).astype(np.int64)
    with concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
        parts = [slice(bounds[i], bounds[i + 1]) for i in range(num_threads)]
        list(threads.map(lambda part: _add_by_class(bits[part], label, weight, _STEP, sums[part]), parts))
    return sums


@compiling.later
def _add_by_class(bits, label, weight, step, sums):  # type: ignore[no-untyped-def]
    """Adds the weights of set bits to sums [runs, K], a block of examples after the other."""
    for start in range(0, len(label), step):
        stop = min(start + step, len(label))
        for run in range(len(bits)):
            line = sums[run]
            for k in range(start, stop):
                # No branch: on bits that nobody could guess it would take twice as long.
                line[label[k]] += weight[k] * ((bits[run, k >> 3] >> (k & 7)) & 1)


def write(path: files.PathLike, means: ClassMeans, subset_ratio: float, common: Mapping[str, np.ndarray]) -> None:
    """Writes the means of one ratio, whole or not at all.

    Args:
        path: the npz file to create or replace.
        means: of all classes.
        subset_ratio: which ratio.
        common: from `saved_scores.common_members`.
    """
    own = {name: np.asarray(getattr(means, name)) for name in (*_FIELDS, "num_runs")}
    npz.write(path, {**common, "subset_ratio": np.asarray(float(subset_ratio)), **own})


def read(path: files.PathLike) -> ClassMeans:
    """Reads what `write` wrote.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is unsound, of another schema version, or its arrays do not fit together.
    """
    found = npz.read(path, ["schema_version", *_FIELDS, "num_runs"])
    size = found["num_train"].size
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_FIELDS, (size,))
    shapes |= {"mean": (size, size), "standard_error": (size, size), "num_runs": ()}
    saved_scores.check_members(path, found, shapes)
    mean, error, num_train, num_undefined, num_test = (found[name] for name in _FIELDS)
    return ClassMeans(mean, error, num_train, num_undefined, num_test, int(found["num_runs"]))


def columns(subset_ratio: float, means: ClassMeans) -> dict[str, np.ndarray]:
    """The means as columns of a table with a row for each pair of classes, by training class, then test class."""
    size = means.num_classes
    return {
        "subset_ratio": np.full(size * size, float(subset_ratio)),
        "train_class": np.repeat(np.arange(size), size),
        "test_class": np.tile(np.arange(size), size),
        "mean_influence": means.mean.ravel(),
        "mean_influence_standard_error": means.standard_error.ravel(),
        "num_train": np.repeat(means.num_train, size),
        "num_undefined": np.repeat(means.num_undefined, size),
        "num_test": np.tile(means.num_test, size),
    }
