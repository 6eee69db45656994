"""Full-batch gradient descent on the mean squared error with l2: its settings, and what deletions make of them.

    L(w) = (1/n) sum_i 1/2 |f(x_i) - y_i|^2 + 1/2 l2 |w - w0|^2,    eta = learning_rate / n,    lam = n l2

so that one step moves the predictions by -eta K (f - y), and A = K + lam I is what is stepped along.
"""

import dataclasses
import math

import numpy as np

from estimators import errors

# What the loss without g of n examples is: see `GradientDescent.without`.
CONVENTIONS = ("mean", "fixed", "published")


@dataclasses.dataclass(frozen=True)
class Rates:
    """eta and lam of the formulas.

    Attributes:
        eta: learning rate over the number of examples, > 0.
        lam: the number of examples times l2, >= 0.
    """

    eta: float
    lam: float


@dataclasses.dataclass(frozen=True)
class GradientDescent:
    """Settings of gradient descent.

    Attributes:
        learning_rate: of the mean loss, > 0.
        l2: coefficient of 1/2 |w - w0|^2 beside the mean loss, >= 0.
        continuous: gradient flow, t steps taking the time t learning_rate, in place of steps.

    Raises:
        InvalidArgumentError: a number lies outside.
    """

    learning_rate: float
    l2: float = 0.0
    continuous: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise errors.InvalidArgumentError(f"learning_rate {self.learning_rate}: must be a number above 0")
        if not (math.isfinite(self.l2) and self.l2 >= 0):
            raise errors.InvalidArgumentError(f"l2 {self.l2}: must be a number from 0 up")

    def rates(self, num_train: int) -> Rates:
        """The rates eta and lam with all examples."""
        return Rates(self.learning_rate / num_train, num_train * self.l2)

    def without(self, num_train: int, num_removed: int, convention: str) -> Rates:
        """The rates eta' and lam' when g of n examples are left out.

        Args:
            num_train: n.
            num_removed: g, less than n.
            convention: "mean": the loss is the mean over the n - g that are left, eta' = learning_rate / (n - g),
                lam' = (n - g) l2. "fixed": the weights 1/n are kept, eta' = eta, lam' = lam. "published": what the
                program of Harutyunyan et al. does, eta' = learning_rate / (n - 1), lam' = n l2.

        Raises:
            InvalidArgumentError: the convention is unknown, or nothing is left.
        """
        if convention not in CONVENTIONS:
            raise errors.InvalidArgumentError(f"convention {convention!r}: expected one of {', '.join(CONVENTIONS)}")
        if not 0 < num_removed < num_train:
            raise errors.InvalidArgumentError(
                f"{num_removed} of {num_train} examples left out: at least one must go and one must stay"
            )
        full = self.rates(num_train)
        if convention == "fixed":
            return full
        if convention == "published":
            return Rates(self.learning_rate / (num_train - 1), full.lam)
        return self.rates(num_train - num_removed)

    def check_time(self, time: float) -> None:
        """Refuses a time that cannot be.

        Raises:
            InvalidArgumentError: negative, NaN, or steps that are no whole number.
        """
        whole = self.continuous or math.isinf(time) or float(time).is_integer()
        if not (time >= 0 and whole):
            kind = "a number from 0 up" if self.continuous else "a whole number of steps from 0 up, or infinity"
            raise errors.InvalidArgumentError(f"time {time}: expected {kind}")

    def check_stable(self, largest: float, rates: Rates) -> None:
        """Refuses steps that diverge.

        Args:
            largest: the largest eigenvalue of the kernel.
            rates: eta and lam.

        Raises:
            InvalidArgumentError: eta (largest + lam) >= 2.
        """
        reach = rates.eta * (largest + rates.lam)
        if not self.continuous and not reach < 2:
            num = self.learning_rate / rates.eta
            raise errors.InvalidArgumentError(
                f"learning_rate {self.learning_rate:.6g} diverges: eta (largest eigenvalue + lam) = {reach:.6g}, which "
                f"must be below 2 (largest eigenvalue {largest:.6g}, lam {rates.lam:.6g}, {num:.0f} examples); take a "
                f"learning_rate below {np.nextafter(2 * num, 0) / (largest + rates.lam):.6g}, or continuous=True"
            )
