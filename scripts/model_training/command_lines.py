"""Command lines of networks: forms of older programs that ours take too, and texts that become settings."""

from collections.abc import Mapping, Sequence
import re
from typing import Any

from heldout.experiments import data_split, label_noise, training_config
from scripts import old_command_lines
from zoo import errors

_ALL_AUGMENTATIONS = ",".join(training_config.AUGMENTATIONS)
# Of a training set of 50000, as they are commonly divided.
_VALIDATING = {"cifar10": 1000, "cifar100": 1000}


def rewritten(argv: Sequence[str]) -> list[str]:
    """Arguments with underscores in names of flags, and with a value for --augmentation where it stands alone."""
    found: list[str] = []
    arguments = old_command_lines.with_underscores(argv)
    for position, argument in enumerate(arguments):
        rest = arguments[position + 1 :]
        if argument in ("--augmentation", "-augmentation") and (not rest or rest[0].startswith("-")):
            argument = f"--augmentation={_ALL_AUGMENTATIONS}"
        elif argument in ("--noaugmentation", "-noaugmentation"):
            argument = "--augmentation=none"
        found.append(argument)
    return found


def augmentation(parts: Sequence[str]) -> tuple[str, ...]:
    """What --augmentation says: none, or any of crop and flip, in any order; true and false mean both and none."""
    words = [part.strip().lower() for part in parts if part.strip()]
    if words in ([], ["none"], ["false"]):
        return ()
    if words == ["true"]:
        return training_config.AUGMENTATIONS
    known = [name for name in training_config.AUGMENTATIONS if name in words]
    # What is not known, or is there twice, is for the configuration to refuse.
    return tuple(known) if sorted(known) == sorted(words) else tuple(words)


def noise(text: str, seed: int, label_map: Mapping[str, Any]) -> label_noise.LabelNoise | None:
    """As `label_noise.parse`; a share alone, as in 0.2, is symmetric noise, and 0 is none.

    Raises:
        InvalidValueError: as `label_noise.parse`.
    """
    text = text.strip()
    if re.fullmatch(r"0?\.?0+|0\.", text):
        text = "none"
    elif re.fullmatch(r"0?\.[0-9]+|1\.0*", text):
        text = f"symmetric:{text if not text.endswith('.') else text + '0'}"
    # A sweep may have one of its noises without a map.
    return label_noise.parse(text, seed, label_map if text.startswith(("asymmetric", "class")) else None)


def val_split(text: str, dataset: str) -> data_split.Amount:
    """What validates; auto is 1000 examples of cifar10 and cifar100, and none of others.

    Raises:
        InvalidValueError: as `data_split.parse`.
    """
    return _VALIDATING.get(dataset, 0) if text == "auto" else data_split.parse("val_split", text)


def widths(text: str) -> tuple[int, ...]:
    """Widths of "1,2,4", in the order given.

    Raises:
        InvalidValueError: a part is no whole number above 0, or one is there twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[1-9][0-9]{0,8}", part) for part in parts) or len(set(parts)) < len(parts):
        raise errors.InvalidValueError(f"--widths={text}: expected widths above 0, each once, like 1,2,4,8")
    return tuple(int(part) for part in parts)
