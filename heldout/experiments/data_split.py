"""Which training examples a single network is trained on, and which validate it, from a seed of their own.

The words of the split come from a Philox generator whose key is the first 128 bits of

    SHA-256("heldout-split-1/<seed>/split")

Of the permutation of all N examples that they give, the first ones validate and the next ones are trained on, each in
ascending order. So the validation examples of a seed do not depend on how many are trained on; nothing else draws from
this seed.
"""

import hashlib
import re

import numpy as np

from heldout import subsets
from zoo import errors

# A share of the training set where it is a float, a number of examples where it is an int; None for all that is left.
Amount = int | float | None

_SCHEME = "heldout-split-1"
_MOST = 10**15


def parse(flag: str, text: str) -> Amount:
    """An amount as it is typed: "0.9" is a share, "49000" a number of examples, "rest" what the other split leaves.

    Args:
        flag: its name, for the message.
        text: what was typed.

    Raises:
        InvalidValueError: it is none of these.
    """
    if text == "rest":
        return None
    if re.fullmatch("[0-9]{1,15}", text):
        return int(text)
    if re.fullmatch(r"[0-9]*\.[0-9]+|[0-9]+\.", text) and float(text) <= 1:
        return float(text)
    raise errors.InvalidValueError(
        f"--{flag}={text}: expected a number of examples like 49000, a share like 0.98, or rest"
    )


def check(flag: str, amount: Amount) -> None:
    """Refuses what is no amount.

    Raises:
        InvalidValueError: it is no share, number of examples or None.
    """
    is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
    if amount is None or (is_number and 0 <= amount <= (1 if isinstance(amount, float) else _MOST)):
        return
    raise errors.InvalidValueError(f"--{flag}={amount!r}: expected a share in 0.0 to 1.0, or a number of examples")


def sizes(train_split: Amount, val_split: Amount, num_examples: int) -> tuple[int, int]:
    """How many examples are trained on, and how many validate.

    Args:
        train_split: what is trained on; None for all that do not validate.
        val_split: what validates; None for all that are not trained on.
        num_examples: N.

    Raises:
        InvalidValueError: both are None, they are more than N together, or none is trained on.
    """
    if train_split is None and val_split is None:
        raise errors.InvalidValueError("--train_split=rest with --val_split=rest: one of them must be an amount")
    num_val = None if val_split is None else _count(val_split, num_examples)
    num_train = num_examples - int(num_val or 0) if train_split is None else _count(train_split, num_examples)
    if num_val is None:
        num_val = num_examples - num_train
    if num_train < 1 or num_val < 0 or num_train + num_val > num_examples:
        raise errors.InvalidValueError(
            f"--train_split={_text(train_split)} with --val_split={_text(val_split)}: {num_train} examples to train on "
            f"and {num_val} to validate, of {num_examples}; expected at least 1 to train on, and together no more than "
            "there are"
        )
    return num_train, num_val


def draw(seed: int, num_train: int, num_val: int, num_examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Original positions of the examples that are trained on, int64 [num_train], and that validate, int64 [num_val].

    Args:
        seed: of the split, 0 or more.
        num_train: see `sizes`.
        num_val: see `sizes`.
        num_examples: N.

    Returns:
        Both ascending; they have no example in common.
    """
    drawn = order(seed, num_examples)
    return np.sort(drawn[num_val : num_val + num_train]), np.sort(drawn[:num_val])


def order(seed: int, num_examples: int) -> np.ndarray:
    """The permutation of all examples that a seed gives, int64 [N].

    Args:
        seed: of the split, 0 or more.
        num_examples: N.
    """
    digest = hashlib.sha256(f"{_SCHEME}/{seed}/split".encode()).digest()
    return subsets.permutation(int.from_bytes(digest[:16], "little"), num_examples)


def _count(amount: int | float, num_examples: int) -> int:
    return round(amount * num_examples) if isinstance(amount, float) else amount


def _text(amount: Amount) -> str:
    return "rest" if amount is None else str(amount)
