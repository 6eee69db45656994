"""Numbers and counts as a page shows them: true minus signs, thin spaces between thousands, NaN in words."""

import math

import numpy as np

_MINUS = "\u2212"
_THIN_SPACE = "\u202f"  # narrow and unbreakable
NO_VALUE = "no held-out run"


def signed(value: float) -> str:
    """A score with its sign and two decimals: "+0.83", "−0.20", "0.00"."""
    if math.isnan(value):
        return NO_VALUE
    text = f"{abs(value):.2f}"
    if float(text) == 0:
        return text
    return (_MINUS if value < 0 else "+") + text


def error(value: float) -> str:
    """A standard error with two decimals: "0.05"; at most 0.005 but not 0 is "<0.01"."""
    if math.isnan(value):
        return "–"
    return "<0.01" if 0 < value < 0.005 else f"{value:.2f}"


def count(value: float) -> str:
    """A whole number with thin spaces between thousands: "50 000"."""
    text = f"{abs(round(value)):,}".replace(",", _THIN_SPACE)
    return _MINUS + text if round(value) < 0 else text


def percent(share: float, digits: int = 1) -> str:
    """A share in percent: "97.3 %"; "no data" for NaN."""
    return "no data" if math.isnan(share) else f"{100 * share:.{digits}f}{_THIN_SPACE}%"


def undefined(num_in: np.ndarray, num_heldout: np.ndarray) -> str:
    """A sentence about the examples without memorization; "" where every example has one.

    Args:
        num_in: int [N], runs that trained on each example.
        num_heldout: int [N], runs that held it out.
    """
    parts = []
    if unheld := int((num_heldout == 0).sum()):
        parts.append(f"{count(unheld)} have no held-out run")
    if unseen := int((num_in == 0).sum()):
        parts.append(f"{count(unseen)} were never trained on")
    if not parts:
        return ""
    return f"Of {count(num_in.size)} training examples, {' and '.join(parts)}; for them there is no value."
