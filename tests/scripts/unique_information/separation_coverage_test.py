"""How often the intervals of an AUROC hold the truth; `python -m` prints the table of the module's docstring."""

from collections.abc import Callable

import numpy as np
import pytest

from scripts.unique_information import separation

_GENERATOR = np.random.default_rng(0)
_Draw = Callable[[int], np.ndarray]


def normal(mean: float, spread: float = 1.0) -> tuple[_Draw, _Draw]:
    return (lambda number: _GENERATOR.normal(mean, spread, number)), (lambda number: _GENERATOR.normal(0, 1, number))


def mixture(share: float) -> tuple[_Draw, _Draw]:
    def draw(number):
        is_far = _GENERATOR.random(number) < share
        return np.where(is_far, _GENERATOR.normal(4, 1, number), _GENERATOR.normal(0, 1, number))

    return draw, lambda number: _GENERATOR.normal(0, 1, number)


def tied(first: float, second: float) -> tuple[_Draw, _Draw]:
    def draws(share):
        return lambda number: (_GENERATOR.random(number) < share) * np.round(_GENERATOR.random(number), 1)

    return draws(first), draws(second)


CASES = {
    **{f"normal, {apart} apart": normal(apart) for apart in (0, 1, 2, 3)},
    "three times as wide": normal(1, 3),
    "half are far": mixture(0.5),
    "nine tenths are far": mixture(0.9),
    "ties": tied(0.9, 0.1),
}
_SIZES = ((6, 54), (30, 30), (100, 900))
# Of the truth, whose error is then some 0.002.
_MANY = 20_000


def coverage(draws, sizes, method, num_trials, **options):
    """Share of trials whose interval holds the truth."""
    truth = separation.auroc(draws[0](_MANY), draws[1](_MANY)).value
    held = 0
    for _ in range(num_trials):
        found = separation.auroc(draws[0](sizes[0]), draws[1](sizes[1]), method=method, **options)
        held += found.low <= truth <= found.high
    return held / num_trials


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_delong_holds_the_truth_about_as_often_as_it_says(case):
    # Three standard errors of 400 trials below the least that was found.
    assert coverage(CASES[case], (30, 30), "delong", 400) > 0.917 - 3 * np.sqrt(0.05 * 0.95 / 400)


def main():
    for sizes in _SIZES:
        for case, draws in CASES.items():
            found = {
                "delong": coverage(draws, sizes, "delong", 600),
                "newcombe": coverage(draws, sizes, "newcombe", 600),
            }
            if max(sizes) < 100:
                found["bootstrap"] = coverage(draws, sizes, "bootstrap", 150, num_draws=200)
            print(*sizes, f"{case}:", ", ".join(f"{name} {share:.3f}" for name, share in found.items()), flush=True)


if __name__ == "__main__":
    main()
