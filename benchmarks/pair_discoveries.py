"""How many entries of a list of influential pairs are false, and how many of the true pairs it finds.

    python -m benchmarks.pair_discoveries

Pairs that share a test example, or a training example, have dependent p-values. In simulated zoos (2000 training and
1000 test examples, so 2 million pairs; subsets of one size, ratio 0.7) it is known which pairs have an influence: 300
test examples hang on one training example each, out of 100, by 0.15, 0.2 or 0.3; all other influences are 0, up to the
-1 / N that comes with subsets of one size. What runs are right on depends

    alone         on the example and the subset
    quality       on the quality of the run, too, which all test examples share
    look-alikes   on a taste of the run, for each ten test examples: it is right on five of them rather than on the
                  other five, so that p-values are strongly dependent in either direction

and a fourth setting is "look-alikes" without any influence. For each, and for lists after Benjamini & Hochberg and
after Benjamini & Yekutieli at a rate of 0.05, it prints the share of false entries (the mean over zoos, empty lists
counting as 0, with its standard error), the same among the entries of 0.15 and more, as the table of pairs has them,
and the share of the true pairs that are found, by influence. Then for all pairs of 0.15 and more, listed or not, how
many there are, and how many of their 95 % intervals hold the truth: chosen by their estimates, they have estimates
that are too high. Takes some ten minutes; writes benchmarks/results/pair_discoveries.json.
"""

import dataclasses
from typing import Any

from absl import app, flags
import numpy as np
from scipy import special

from benchmarks import environment
from heldout.scoring import discoveries, influence_matrix, intervals
from zoo import run_table

_NUM_ZOOS = flags.DEFINE_integer("num_zoos", 40, "Simulated zoos for each setting.", 2)
_NUM_RUNS = flags.DEFINE_multi_integer("num_runs", [600, 2000], "Runs of each.", 10)

_RATE, _RATIO = 0.05, 0.7
_NUM_TRAIN, _NUM_TEST, _NUM_HELPED, _NUM_HELPERS = 2000, 1000, 300, 100
_INFLUENCES = (0.15, 0.2, 0.3)
_LEAST_INFLUENCE = 0.15
_GROUP = 10
# Shares of the variance of the latent variable that runs share among test examples.
_SHARED = 0.5
# Pairs below so many standard errors have p-values far above all thresholds, and count as 1.
_LEAST_Z = 2.0
# Settings: what is shared, and whether there are influences.
_SETTINGS = {
    "alone": (0.0, 0.0, True),
    "quality": (_SHARED, 0.0, True),
    "look-alikes": (0.0, _SHARED, True),
    "look-alikes, no influence": (0.0, _SHARED, False),
}


def true_pairs(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The training example that each of the helped test examples hangs on, and by how much: [300] each."""
    helpers = generator.choice(_NUM_TRAIN, _NUM_HELPERS, replace=False)
    return generator.choice(helpers, _NUM_HELPED), np.resize(_INFLUENCES, _NUM_HELPED)


def simulate(
    num_runs: int,
    helper: np.ndarray,
    influence: np.ndarray,
    quality: float,
    taste: float,
    generator: np.random.Generator,
) -> run_table.RunTable:
    """Runs of one zoo.

    Args:
        num_runs: T.
        helper: integers [n], training example on which each of the first n test examples hangs.
        influence: floats [n], of these pairs.
        quality: share of the variance that all test examples have in common.
        taste: share that the test examples of a group have in common, half of them with the other sign.
        generator: of all draws.
    """
    order = np.argsort(generator.random((num_runs, _NUM_TRAIN)), axis=1)
    mask = np.zeros((num_runs, _NUM_TRAIN), bool)
    np.put_along_axis(mask, order[:, : round(_RATIO * _NUM_TRAIN)], True, axis=1)
    rate = np.broadcast_to(generator.uniform(0.3, 0.99, _NUM_TEST), (num_runs, _NUM_TEST)).copy()
    # Low enough for the influence to be added.
    rate[:, : len(helper)] = 0.1 + 0.6 * (rate[:, : len(helper)] - 0.3) / 0.69
    rate[:, : len(helper)] += influence * mask[:, helper]
    tastes = np.repeat(generator.normal(size=(num_runs, _NUM_TEST // _GROUP)), _GROUP, axis=1)
    sign = np.where(np.arange(_NUM_TEST) % _GROUP < _GROUP // 2, 1, -1)
    latent = np.sqrt(quality) * generator.normal(size=(num_runs, 1)) + np.sqrt(taste) * sign * tastes
    latent += np.sqrt(1 - quality - taste) * generator.normal(size=latent.shape)
    right = latent < special.ndtri(rate)
    nothing = np.zeros((num_runs, _NUM_TRAIN), bool)
    return run_table.from_arrays("simulated", np.arange(num_runs), np.full(num_runs, _RATIO), mask, nothing, right)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The pairs of a zoo whose p-values are not surely large: estimate, true influence, p-value, 95 % interval; [n]."""

    value: np.ndarray
    truth: np.ndarray
    p_value: np.ndarray
    interval: intervals.Interval


def pairs_of(table: run_table.RunTable, truth: np.ndarray) -> Pairs:
    """Pairs of a zoo with true influences [N, M]."""
    sides = influence_matrix.sides_of(table)
    values = influence_matrix.subset_influence(table, _RATIO).values
    rate = sides.num_right / sides.num_runs
    spread = np.sqrt(rate * (1 - rate) * (1 / sides.num_in + 1 / sides.num_heldout)[:, None])
    rows, columns = np.nonzero(values >= _LEAST_Z * spread)
    num_in, num_heldout = sides.num_in[rows], sides.num_heldout[rows]
    right = sides.num_right[columns].astype(np.float64)
    right_in = influence_matrix.counts_from_values(values[rows, columns], num_in, num_heldout, right)
    counts = (right_in, num_in, right - right_in, num_heldout)
    return Pairs(
        values[rows, columns],
        truth[rows, columns],
        discoveries.no_effect_p_values(*counts),
        intervals.difference(*counts),
    )


def setting(num_runs: int, quality: float, taste: float, has_influence: bool) -> dict[str, Any]:
    """Figures of one setting by method."""
    found: dict[str, list[dict[str, float]]] = {method: [] for method in discoveries.METHODS}
    high: list[tuple[int, int, int]] = []
    for seed in range(_NUM_ZOOS.value):
        generator = np.random.default_rng([seed, num_runs])
        helper, influence = true_pairs(generator)
        if not has_influence:
            helper, influence = helper[:0], influence[:0]
        truth = np.zeros((_NUM_TRAIN, _NUM_TEST))
        truth[helper, np.arange(len(helper))] = influence
        pairs = pairs_of(simulate(num_runs, helper, influence, quality, taste, generator), truth)
        for method in discoveries.METHODS:
            adjusted = discoveries.adjusted_p_values(pairs.p_value, method, num_tests=truth.size)
            found[method].append(of_list(pairs, adjusted <= _RATE, influence))
        chosen = pairs.value >= np.float32(_LEAST_INFLUENCE)
        holds = (pairs.interval.low <= pairs.truth) & (pairs.truth <= pairs.interval.high)
        high.append((int(chosen.sum()), int(np.sum(chosen & (pairs.truth == 0))), int(np.sum(chosen & holds))))
    num_high, num_false, num_held = np.sum(high, axis=0).tolist()
    return {
        **{method: _means(of_zoos) for method, of_zoos in found.items()},
        "high": {
            "pairs": num_high,
            "false_share": round(num_false / max(1, num_high), 5),
            "interval_holds": round(num_held / max(1, num_high), 5),
        },
    }


def of_list(pairs: Pairs, listed: np.ndarray, influence: np.ndarray) -> dict[str, float]:
    """Figures of the list of one zoo."""
    false, high = listed & (pairs.truth == 0), pairs.value >= np.float32(_LEAST_INFLUENCE)
    found = {
        f"found_{one}": float(np.sum(listed & (pairs.truth == one)) / np.sum(influence == one))
        for one in _INFLUENCES
        if len(influence)
    }
    return {
        "false_share": float(np.sum(false) / max(1, np.sum(listed))),
        "false_share_of_high": float(np.sum(false & high) / max(1, np.sum(listed & high))),
        **found,
    }


def _means(of_zoos: list[dict[str, float]]) -> dict[str, float]:
    values = {name: np.array([one[name] for one in of_zoos]) for name in of_zoos[0]}
    error = np.std(values["false_share"], ddof=1) / np.sqrt(len(of_zoos))
    return {name: round(float(np.mean(array)), 5) for name, array in values.items()} | {
        "standard_error": round(float(error), 5)
    }


def _show(name: str, figures: dict[str, Any]) -> None:
    for method in discoveries.METHODS:
        one = figures[method]
        found = ", ".join(
            f"{100 * share:.1f} % of {key.removeprefix('found_')}" for key, share in one.items() if "found" in key
        )
        print(
            f"{name}, {method}: false {one['false_share']:.4f} +- {one['standard_error']:.4f}, of the high "
            f"{one['false_share_of_high']:.4f}; found {found or '-'}",
            flush=True,
        )
    high = figures["high"]
    print(
        f"{name}, {high['pairs']} of {_LEAST_INFLUENCE} and more: false {high['false_share']:.4f}, intervals hold "
        f"{high['interval_holds']:.4f}",
        flush=True,
    )


def main(argv: list[str]) -> None:
    """Prints and stores the figures of every setting."""
    del argv
    figures = {}
    for num_runs in _NUM_RUNS.value:
        for name, options in _SETTINGS.items():
            whole = f"{num_runs} runs, {name}"
            figures[whole] = setting(num_runs, *options)
            _show(whole, figures[whole])
    settings = {"num_zoos": _NUM_ZOOS.value, "num_pairs": _NUM_TRAIN * _NUM_TEST}
    print(environment.save("pair_discoveries", {"rate": _RATE, "settings": figures, **settings}))


if __name__ == "__main__":
    app.run(main)
