"""Numbers and counts as a page shows them: true minus signs, thin spaces between thousands, NaN in words."""

import math

import numpy as np

_MINUS = "\u2212"
_THIN_SPACE = "\u202f"  # narrow and unbreakable
NO_VALUE = "no held-out run"
_MOST_DECIMALS = 6
# Below this many runs on the side that has fewer, the standard error of a share reaches 0.09 and more.
_FEW_RUNS = 30


def signed(value: float) -> str:
    """A score with its sign and two decimals, more where it would look like 0: "+0.83", "−0.20", "−0.004", "0.00"."""
    if math.isnan(value):
        return NO_VALUE
    text = _decimals(abs(value))
    if float(text) == 0:
        return text
    return (_MINUS if value < 0 else "+") + text


def error(value: float) -> str:
    """A standard error with two decimals, more where it would look like 0: "0.05", "0.003", "0.00"."""
    return "–" if math.isnan(value) else _decimals(value)


def _decimals(size: float) -> str:
    """Two decimals, or as many as the first digit that is not 0 needs; below 5e-7, rounding of the arithmetic, two."""
    for decimals in range(2, _MOST_DECIMALS + 1):
        text = f"{size:.{decimals}f}"
        if float(text) != 0:
            return text
    return f"{0:.2f}"


def count(value: float) -> str:
    """A whole number with thin spaces between thousands: "50 000"."""
    text = f"{abs(round(value)):,}".replace(",", _THIN_SPACE)
    return _MINUS + text if round(value) < 0 else text


def percent(share: float, digits: int = 1) -> str:
    """A share in percent: "97.3 %"; "no data" for NaN."""
    return "no data" if math.isnan(share) else f"{100 * share:.{digits}f}{_THIN_SPACE}%"


def correlation(value: float) -> str:
    """A correlation with three decimals and a true minus sign: "0.983", "−0.020"; 0 has no sign."""
    text = f"{abs(value):.3f}"
    return (_MINUS if value < 0 and float(text) != 0 else "") + text


def counted(number: float, noun: str) -> str:
    """A number of things: "1 run", "1 400 runs"."""
    return f"{count(number)} {noun if number == 1 else noun + 's'}"


def few_runs(num_runs: int, num_in: np.ndarray, num_heldout: np.ndarray) -> str:
    """A warning where the median of the runs on the side that has fewer is below 30; "" otherwise.

    Args:
        num_runs: all runs behind the scores.
        num_in: int [N], runs that trained on each example.
        num_heldout: int [N], runs that held it out.
    """
    typical = float(np.median(np.minimum(num_in, num_heldout)))
    if typical >= _FEW_RUNS:
        return ""
    side = "held out" if np.median(num_heldout) <= np.median(num_in) else "trained on"
    return (
        f"Only {counted(num_runs, 'run')}: a typical example was {side} {counted(int(typical), 'time')}; "
        "single values are mostly noise"
    )


def undefined(num_in: np.ndarray, num_heldout: np.ndarray) -> str:
    """A sentence about the examples without memorization; "" where every example has one.

    Args:
        num_in: int [N], runs that trained on each example.
        num_heldout: int [N], runs that held it out.
    """
    parts = []
    if unheld := int((num_heldout == 0).sum()):
        parts.append(f"{count(unheld)} {'has' if unheld == 1 else 'have'} no held-out run")
    if unseen := int((num_in == 0).sum()):
        parts.append(f"{count(unseen)} {'was' if unseen == 1 else 'were'} never trained on")
    if not parts:
        return ""
    return f"Of {count(num_in.size)} training examples, {' and '.join(parts)}; for them there is no value."
