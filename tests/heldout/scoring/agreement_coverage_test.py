"""How often the intervals of `heldout.scoring.agreement` hold the true correlation, for scores as zoos have them.

    python -m tests.heldout.scoring.agreement_coverage_test

prints the table that the module's docstring sums up.
"""

import numpy as np
import pytest

from heldout.scoring import agreement

_NUM_TRIALS = 400
_NUM_DRAWS = 300
_TRUTH_EXAMPLES = 200_000
_FIGURES = ("pearson", "spearman", "kendall")


def normal(generator, number):
    """What the formulas of the fisher intervals assume; correlation 0.7."""
    first = generator.normal(size=number)
    return first, 0.7 * first + np.sqrt(1 - 0.49) * generator.normal(size=number)


def consistency(generator, number):
    """Held-out accuracies from 20 runs each of two zoos; most examples are nearly always right, so ties abound."""
    rate = generator.beta(1.5, 0.15, number)
    return generator.binomial(20, rate) / 20, generator.binomial(20, rate) / 20


def memorization(generator, number):
    """Differences of two rates from 30 runs a side: nine examples in ten near 0, the rest anywhere up to 1."""
    heldout = np.where(generator.random(number) < 0.1, generator.random(number), 0.99)
    return tuple((30 - generator.binomial(30, heldout)) / 30 for _ in range(2))


def heavy_tailed(generator, number):
    """Memorization of which one example in fifty is far from 0."""
    common = np.where(generator.random(number) < 0.02, generator.random(number), 0)
    return tuple(common + 0.03 * generator.normal(size=number) for _ in range(2))


CASES = (normal, consistency, memorization, heavy_tailed)


def coverage(case, number, method, num_trials=_NUM_TRIALS, num_draws=_NUM_DRAWS):
    """Share of trials whose interval holds the truth, for each figure; the truth is that of very many examples."""
    # Kendall's tau of all of them takes as long as the rest together; its error is far below the intervals' width.
    truth = agreement.agreement(
        *case(np.random.default_rng(1), _TRUTH_EXAMPLES), method="fisher", max_kendall=_TRUTH_EXAMPLES
    )
    generator, held = np.random.default_rng(2), dict.fromkeys(_FIGURES, 0)
    for trial in range(num_trials):
        found = agreement.agreement(*case(generator, number), method=method, num_draws=num_draws, seed=trial)
        for name in _FIGURES:
            estimate = getattr(found, name)
            held[name] += estimate.low <= getattr(truth, name).value <= estimate.high
    return {name: count / num_trials for name, count in held.items()}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_bootstrap_holds_the_truth(case):
    found = coverage(case, 1000, "bootstrap")
    # 0.95 less three standard errors of a share among 400, and two points that the percentile interval may lack.
    assert min(found.values()) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / _NUM_TRIALS) - 0.02, found


def test_fisher_holds_the_truth_for_normal_scores_only():
    bound = 3 * np.sqrt(0.95 * 0.05 / _NUM_TRIALS)
    assert min(coverage(normal, 300, "fisher").values()) >= 0.95 - bound
    assert coverage(heavy_tailed, 300, "fisher")["pearson"] < 0.8


def main():
    for case in CASES:
        for number in (50, 300, 1000):
            for method in agreement.METHODS:
                found = coverage(case, number, method)
                print(
                    f"{case.__name__:13} {number:5} {method:9}", *(f"{n} {v:.3f}" for n, v in found.items()), flush=True
                )


if __name__ == "__main__":
    main()
