"""How often the interval of the number of memorized examples holds the true number, in simulated zoos.

    python -m benchmarks.interval_coverage

A simulated zoo has 600 examples with known rates: held out, each is right with its own rate; trained on, with another.
The true number of memorized examples counts the differences of at least 0.25. Three populations, by how many examples
lie within 0.1 of that threshold: none, few (5 %), many (all memorization uniform in [0, 0.6]). For each and for 60, 300
and 2000 runs, many zoos are drawn, and the share of those whose interval holds the true number is printed, for the
percentile interval, the basic one (its mirror image at the count), and the union that heldout/scoring/bootstrap.py
returns. Writes benchmarks/results/interval_coverage.json.
"""

from absl import app, flags
import numpy as np

from benchmarks import environment
from heldout.scoring import bootstrap
from zoo import run_table

_NUM_ZOOS = flags.DEFINE_integer("num_zoos", 60, "Simulated zoos for each setting.")
_NUM_DRAWS = flags.DEFINE_integer("num_draws", 100, "Bootstrap draws for each zoo.")

_NUM_EXAMPLES, _THRESHOLD, _RATIO = 600, 0.25, 0.7


def memorization_of(population: str, generator: np.random.Generator) -> np.ndarray:
    """True memorization of the examples of a population, [600]."""
    if population == "many":
        return generator.uniform(0, 0.6, _NUM_EXAMPLES)
    values = np.where(generator.random(_NUM_EXAMPLES) < 0.1, 0.8, 0.02)
    if population == "few":
        near = generator.random(_NUM_EXAMPLES) < 0.05
        values[near] = generator.uniform(0.15, 0.35, near.sum())
    return values


def coverage(population: str, num_runs: int) -> dict[str, float]:
    """Share of zoos whose interval holds the true number, for each kind of interval."""
    hits = {"percentile": 0, "basic": 0, "union": 0}
    for seed in range(_NUM_ZOOS.value):
        generator = np.random.default_rng([seed, num_runs])
        memorization = memorization_of(population, generator)
        truth = int(np.sum(memorization >= _THRESHOLD))
        table = _simulate(memorization, num_runs, generator)
        found = bootstrap.count_above(table, _RATIO, _THRESHOLD, num_draws=_NUM_DRAWS.value, seed=seed)
        counts = bootstrap.redrawn_counts(table.select(_RATIO), _THRESHOLD, _NUM_DRAWS.value, seed)
        low, high = np.quantile(counts, [0.025, 0.975])
        hits["percentile"] += low <= truth <= high
        hits["basic"] += 2 * found.count - high <= truth <= 2 * found.count - low
        hits["union"] += found.low <= truth <= found.high
    return {name: count / _NUM_ZOOS.value for name, count in hits.items()}


def _simulate(memorization: np.ndarray, num_runs: int, generator: np.random.Generator) -> run_table.RunTable:
    accuracy_in = generator.uniform(0.85, 1, _NUM_EXAMPLES)
    mask = generator.random((num_runs, _NUM_EXAMPLES)) < _RATIO
    rates = np.where(mask, accuracy_in, accuracy_in - memorization)
    correct = generator.random(mask.shape) < rates
    ratios = np.full(num_runs, _RATIO)
    return run_table.from_arrays("simulated", np.arange(num_runs), ratios, mask, correct, correct[:, :1])


def main(argv: list[str]) -> None:
    """Prints and stores the coverage of every setting."""
    del argv
    figures = {}
    for population in ("none", "few", "many"):
        for num_runs in (60, 300, 2000):
            figures[f"{population} near, {num_runs} runs"] = found = coverage(population, num_runs)
            shares = "  ".join(f"{name} {100 * share:5.1f} %" for name, share in found.items())
            print(f"{population:>5} near the threshold, {num_runs:>4} runs: {shares}", flush=True)
    settings = {"num_zoos": _NUM_ZOOS.value, "num_draws": _NUM_DRAWS.value}
    print(environment.save("interval_coverage", {"coverage": figures, **settings}))


if __name__ == "__main__":
    app.run(main)
