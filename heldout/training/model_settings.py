"""Everything that decides a single trained network, stored in its folder as settings.json.

Four seeds are independent, and each does its own job only:

    data_split_seed    which training examples are trained on and which validate (heldout/experiments/data_split.py)
    label_seed         which labels are changed, and to what (heldout/experiments/label_noise.py)
    mc_sample_seed     the random images of a random data set (heldout/datasets/random_images.py)
    seed               initial values, order of the examples, augmentation
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import re
from typing import Any, Self

import numpy as np

from heldout.datasets import random_images
from heldout.experiments import data_split, label_noise, training_config
from zoo import errors

SCHEMA_VERSION = 1
_MOST_SEED = 10**15
_SEEDS = ("data_split_seed", "mc_sample_seed", "seed")
_EVERY, _LOG = "every:", "log:"


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """What one network is, and how it is trained.

    Attributes:
        dataset: name for `heldout.datasets.registry.load`.
        architecture: name for `heldout.models.registry.build`, such as "conv5_16".
        architecture_options: its keyword arguments.
        training: optimisation; with the accuracy or loss at which it ends early.
        noise: which training labels are changed; None for none. Validation and test labels never are.
        train_split: share or number of the training examples to train on; None for all that do not validate.
        val_split: share or number of the training examples that validate.
        data_split_seed: of the split.
        random_data: "none", or the kind of random images in the place of the real ones.
        mc_sample_seed: of the random images.
        standardise: whether channels are shifted and scaled to mean 0 and standard deviation 1, see model_data.py.
        seed: of initial values, order and augmentation.
        eval_every: epochs between two evaluations.
        checkpoint_epochs: ascending epochs after which a checkpoint is kept, 0 for the initial values; the last epoch
            always has one.
        fingerprint: what the data were, see model_data.py; None before they have been seen.
    """

    dataset: str
    architecture: str
    training: training_config.TrainingConfig = dataclasses.field(default_factory=training_config.TrainingConfig)
    architecture_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    noise: label_noise.LabelNoise | None = None
    train_split: data_split.Amount = None
    val_split: data_split.Amount = 0
    data_split_seed: int = 0
    random_data: str = random_images.NONE
    mc_sample_seed: int = 0
    standardise: bool = True
    seed: int = 0
    eval_every: int = 1
    checkpoint_epochs: tuple[int, ...] = ()
    fingerprint: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuses values of another type or outside their range."""
        data_split.check("train_split", self.train_split)
        data_split.check("val_split", self.val_split)
        if self.train_split is None and self.val_split is None:
            data_split.sizes(None, None, 1)
        known = (random_images.NONE, *random_images.KINDS)
        last = self.training.num_epochs
        requirements = [
            ("dataset", _is_text(self.dataset), "the name of a data set"),
            ("model", _is_text(self.architecture), "the name of an architecture, such as conv5_16"),
            ("model_options", isinstance(self.architecture_options, Mapping), "an object"),
            ("random_data", self.random_data in known, f"one of {', '.join(known)}"),
            ("standardise", isinstance(self.standardise, bool), "true or false"),
            ("eval_every", _is_whole(self.eval_every, 1, 10**9), "a whole number of epochs, 1 or more"),
            ("checkpoint_epochs", self._checkpoints_fit(), f"ascending epochs from 0 to {last} (--epochs)"),
        ]
        requirements += [
            (name, _is_whole(getattr(self, name), 0, _MOST_SEED), f"a whole number from 0 to {_MOST_SEED}")
            for name in _SEEDS
        ]
        names = {"model": "architecture", "model_options": "architecture_options"}
        for name, fulfilled, expected in requirements:
            if not fulfilled:
                value = getattr(self, names.get(name, name))
                raise errors.InvalidValueError(f"--{name}={value}: expected {expected}")

    def _checkpoints_fit(self) -> bool:
        epochs = self.checkpoint_epochs
        whole = isinstance(epochs, tuple) and all(_is_whole(epoch, 0, self.training.num_epochs) for epoch in epochs)
        return whole and list(epochs) == sorted(set(epochs))

    @property
    def label_seed(self) -> int:
        """Seed of the changed labels; 0 where none are."""
        return 0 if self.noise is None else self.noise.seed

    def is_evaluated(self, epoch: int) -> bool:
        """Whether the network is evaluated after so many epochs, if its training does not end there anyhow."""
        return epoch % self.eval_every == 0 or epoch in self.checkpoint_epochs or epoch == self.training.num_epochs

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse."""
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.dataset,
            "model": self.architecture,
            "model_options": dict(self.architecture_options),
            "training": self.training.to_json(),
            "label_noise": None if self.noise is None else self.noise.to_json(),
            "train_split": self.train_split,
            "val_split": self.val_split,
            "data_split_seed": self.data_split_seed,
            "random_data": self.random_data,
            "mc_sample_seed": self.mc_sample_seed,
            "standardise": self.standardise,
            "seed": self.seed,
            "eval_every": self.eval_every,
            "checkpoint_epochs": list(self.checkpoint_epochs),
            "fingerprint": None if self.fingerprint is None else dict(self.fingerprint),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "settings") -> Self:
        """The inverse of `to_json`.

        Args:
            value: what was stored.
            where: names the file, for messages.

        Raises:
            DamagedFileError: members are missing or unknown, or values are of another type or outside their range.
        """
        if value.get("schema_version") != SCHEMA_VERSION:
            raise errors.DamagedFileError(
                f"{where}: schema version {value.get('schema_version')!r}, this program reads {SCHEMA_VERSION}; use "
                "the version of Heldout that trained the network"
            )
        names = {field.name for field in dataclasses.fields(cls)}
        known = names - {"architecture", "architecture_options", "noise"} | {"model", "model_options", "label_noise"}
        if set(value) - {"schema_version"} != known:
            odd = sorted(set(value) - {"schema_version"} ^ known)
            raise errors.DamagedFileError(
                f"{where}: members {', '.join(odd)} are missing or unknown; train the network again"
            )
        members = {name: value[name] for name in names & known}
        try:
            noise, training, epochs = value["label_noise"], value["training"], value["checkpoint_epochs"]
            return cls(
                **members
                | {
                    "architecture": value["model"],
                    "architecture_options": value["model_options"],
                    "noise": None if noise is None else label_noise.LabelNoise.from_json(noise),
                    "training": training_config.TrainingConfig.from_json(training),
                    "checkpoint_epochs": tuple(epochs),
                }
            )
        except (TypeError, AttributeError, errors.InvalidValueError) as error:
            raise errors.DamagedFileError(f"{where}: {error}; train the network again") from error

    def setting_name(self) -> str:
        """The folder of all networks that share everything but their seed: what matters to people, and a digest.

        The digest is of everything but model, data set, seed and fingerprint; so the folder of another setting always
        has another name.
        """
        stored = self.to_json()
        own = {key: item for key, item in stored.items() if key not in ("seed", "model", "dataset", "fingerprint")}
        digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8]
        parts = [f"noise-{self.noise_text()}"]
        if self.training.augmentation:
            parts.append("-".join(self.training.augmentation))
        parts += [f"lr-{_number(self.training.learning_rate)}", f"epochs-{self.training.num_epochs}", digest]
        return "_".join(parts)

    def noise_text(self) -> str:
        """The label noise in a word: "none", "symmetric-0.1", "pair-300"."""
        if self.noise is None:
            return "none"
        amount = self.noise.amount() if self.noise.share is None else _number(self.noise.share)
        return "-".join(filter(None, (self.noise.kind, amount)))

    def data_name(self) -> str:
        """The data set as the name of a folder: "mnist", "cifar10-uniform"; of a file name and digest of its path."""
        kind, _, path = self.dataset.partition(":")
        place = hashlib.sha256(path.encode()).hexdigest()[:6]
        name = f"{kind}-{path.rstrip('/').rpartition('/')[2]}-{place}" if path else kind
        return _safe(name if self.random_data == random_images.NONE else f"{name}-{self.random_data}")

    def model_name(self) -> str:
        """The architecture as the name of a folder."""
        return _safe(self.architecture)


def parse_epochs(text: str, num_epochs: int) -> tuple[int, ...]:
    """Epochs of "1,2,5", "every:10" (0, 10, 20, ...), "log:8" (0 and eight from 1 up in equal ratios), or of several.

    Args:
        text: with commas between its parts; "" for none.
        num_epochs: the last epoch.

    Returns:
        Ascending, each once; the last epoch is among them only where it was named.

    Raises:
        InvalidValueError: a part has another form, or an epoch lies beyond the last one.
    """
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        prefix, number = part.rpartition(":")[0] + ":", part.rpartition(":")[2]
        if (
            not re.fullmatch("[0-9]{1,9}", number)
            or prefix not in (":", _EVERY, _LOG)
            or (prefix != ":" and int(number) < 1)
        ):
            raise errors.InvalidValueError(
                f"--checkpoint_epochs={text}: {part!r} is neither an epoch nor every:10 nor log:8"
            )
        if prefix == _EVERY:
            found.update(range(0, num_epochs + 1, int(number)))
        elif prefix == _LOG:
            found.update({0} | {round(epoch) for epoch in np.geomspace(1, num_epochs, int(number))})
        else:
            found.add(int(number))
    if found and max(found) > num_epochs:
        raise errors.InvalidValueError(
            f"--checkpoint_epochs={text}: epoch {max(found)} lies beyond the last one, {num_epochs} (--epochs)"
        )
    return tuple(sorted(found))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: float) -> str:
    return np.format_float_positional(value, trim="-")


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name).strip(".-") or "unnamed"
