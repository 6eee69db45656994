"""What decides the networks that are trained with and without some training examples; needs no TensorFlow.

Full-batch gradient descent from one initialisation w0, on n examples less g that are left out:

    L(w) = 1 / (n - g) sum_i 1/2 |f(x_i; w) - y_i|^2 + 1/2 l2 |w - w0|^2        w <- w - lr dL/dw, num_steps times

Inputs are x / scale, in [0, 1]. With two classes there is one output, and y is 0 for the first and 1 for the second
class named; with more, y is one-hot.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import math
import pathlib
from typing import Any, Self

from heldout.experiments import label_noise
from heldout.running import settings as settings_text
from heldout.training import leave_out_draw
from zoo import errors, files

SCHEMA_VERSION = 1
CONFIG_NAME = "config.json"
DTYPES = ("float32", "float64")
_MOST = 10**15
# Where files lie does not decide anything; what is in them does.
_PLACES = ("dataset", "init_checkpoint", "sha256")
# Settings that came later are stored, and count in the digest, only where they are used: an experiment that was begun
# before them keeps its digest.
_LATER = ("coarse_labels", "class_counts", "init_body")


@dataclasses.dataclass(frozen=True)
class LeaveOutConfig:
    """An experiment: data, network and training.

    Attributes:
        dataset: name, as for `heldout.datasets.registry.load`.
        classes: labels to keep, in the order that numbers them; empty for all.
        num_train: n, 2 or more.
        num_val: m, 1 or more.
        data_seed: of the draw of examples.
        val_split: "train" or "test": where validation examples are drawn.
        noise: what becomes of training labels, as numbered by `classes`; None for nothing.
        architecture: as for `heldout.models.registry.build`.
        architecture_options: its options.
        seed: of the initialisation.
        init_checkpoint: prefix of a checkpoint that the training begins with, instead of the seed; None for none.
        init_sha256: digest of its data file; needed beside it, for where it lies decides nothing.
        learning_rate: lr, above 0.
        num_steps: t, 1 or more.
        l2: 0 or more.
        dtype: "float32" or "float64".
        record_steps: ascending steps after which the predictions of the full network are kept.
        coarse_labels: labels of the data set that each class is made of, in place of `classes`; empty where each
            label is a class.
        class_counts: (label of the data set, training examples of it), some labels; the others give the rest.
        init_body: only the body is taken from the checkpoint: all variables but those whose shape follows the number
            of outputs, which have the values of the seed.
        fingerprint: of the data; None until they have been seen.

    Raises:
        InvalidValueError: a value is of another type or outside its range.
    """

    dataset: str
    classes: tuple[int, ...] = ()
    num_train: int = 1000
    num_val: int = 1000
    data_seed: int = 0
    val_split: str = "train"
    noise: label_noise.LabelNoise | None = None
    architecture: str = "mlp"
    architecture_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    init_checkpoint: str | None = None
    init_sha256: str | None = None
    learning_rate: float = 1e-3
    num_steps: int = 2000
    l2: float = 0.0
    dtype: str = "float32"
    record_steps: tuple[int, ...] = ()
    coarse_labels: tuple[tuple[int, ...], ...] = ()
    class_counts: tuple[tuple[int, int], ...] = ()
    init_body: bool = False
    fingerprint: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be before anything is loaded."""
        for name, least in (("num_train", 2), ("num_val", 1), ("data_seed", 0), ("seed", 0), ("num_steps", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
                raise errors.InvalidValueError(f"--{name}={value}: expected a whole number from {least} to {_MOST}")
        if not (_is_number(self.learning_rate) and self.learning_rate > 0):
            raise errors.InvalidValueError(f"--learning_rate={self.learning_rate}: expected a number above 0")
        if not (_is_number(self.l2) and self.l2 >= 0):
            raise errors.InvalidValueError(f"--l2={self.l2}: expected a number, 0 or more")
        for name, known in (("dtype", DTYPES), ("val_split", leave_out_draw.VAL_SPLITS)):
            if getattr(self, name) not in known:
                raise errors.InvalidValueError(f"--{name}={getattr(self, name)}: expected one of {', '.join(known)}")
        steps = self.record_steps
        if list(steps) != sorted(set(steps)) or (steps and not 0 <= steps[0] <= steps[-1] <= self.num_steps):
            raise errors.InvalidValueError(
                f"--record_steps={','.join(map(str, steps))}: expected ascending steps from 0 to {self.num_steps} "
                "(--num_steps), each once"
            )
        if self.init_body and self.init_checkpoint is None:
            raise errors.InvalidValueError(
                "--init_body: takes the body of a network from --init_checkpoint, which is not given; name it"
            )
        if self.init_checkpoint is not None and self.init_sha256 is None:
            raise errors.InvalidValueError(
                f"--init_checkpoint={self.init_checkpoint}: expected init_sha256 beside it, the digest of its data "
                "file, by which experiments from different checkpoints are told apart; give it"
            )
        self._check_labels()

    def _check_labels(self) -> None:
        """Refuses classes without sense; which labels there are, the data set says later."""
        if self.coarse_labels and (len(self.coarse_labels) < 2 or not all(self.coarse_labels)):
            raise errors.InvalidValueError(
                f"--coarse_labels={[list(members) for members in self.coarse_labels]}: expected at least two classes, "
                "each of at least one label"
            )
        labels = [label for label, _ in self.class_counts]
        if len(set(labels)) < len(labels) or any(number < 0 for _, number in self.class_counts):
            raise errors.InvalidValueError(
                f"--class_counts={','.join(f'{label}:{number}' for label, number in self.class_counts)}: expected "
                "each label once, with a number of examples, 0 or more"
            )

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse. Its member sha256 is a digest of all that decides the networks."""
        stored = {
            "schema_version": SCHEMA_VERSION,
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "classes": list(self.classes),
            "noise": None if self.noise is None else self.noise.to_json(),
            "architecture_options": dict(self.architecture_options),
            "record_steps": list(self.record_steps),
            "coarse_labels": [list(members) for members in self.coarse_labels],
            "class_counts": [list(pair) for pair in self.class_counts],
            "fingerprint": None if self.fingerprint is None else dict(self.fingerprint),
        }
        stored = {name: value for name, value in stored.items() if value or name not in _LATER}
        decisive = {name: value for name, value in stored.items() if name not in _PLACES}
        return stored | {"sha256": hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()}

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of all that decides the networks."""
        return str(self.to_json()["sha256"])

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "config") -> Self:
        """The inverse of `to_json`.

        Args:
            value: what was stored.
            where: names the file, for messages.

        Raises:
            DamagedFileError: members are missing or unknown, or values are of another type or outside their range.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value[name] for name in value if name not in _LATER}
        expected = (names - set(_LATER)) | {"schema_version", "sha256"}
        if value.get("schema_version") != SCHEMA_VERSION or set(known) != expected:
            raise errors.DamagedFileError(
                f"{where}: schema version {value.get('schema_version')!r} with members {sorted(value)}, expected "
                f"version {SCHEMA_VERSION} as ground_truth_effects writes it; delete the folder and run it again"
            )
        try:
            noise = value["noise"]
            own = {
                "classes": tuple(value["classes"]),
                "record_steps": tuple(value["record_steps"]),
                "noise": None if noise is None else label_noise.LabelNoise.from_json(noise),
                "coarse_labels": tuple(tuple(members) for members in value.get("coarse_labels", ())),
                "class_counts": tuple((label, number) for label, number in value.get("class_counts", ())),
            }
            return cls(**{name: value[name] for name in names if name in value} | own)
        except (TypeError, AttributeError, ValueError) as error:
            raise errors.DamagedFileError(f"{where}: {error}; delete the folder and run the command again") from error


def adopt(folder: files.PathLike, config: LeaveOutConfig) -> None:
    """Stores a config in a folder, or holds it against the one that is there.

    Args:
        folder: of the experiment.
        config: with the fingerprint of its data.

    Raises:
        MismatchError: another is there; names the differences.
        DamagedFileError: the file is unsound.
    """
    path = pathlib.Path(folder) / CONFIG_NAME
    if not path.exists():
        files.write_json(path, config.to_json())
        return
    stored = read(folder)
    if stored.sha256 != config.sha256:
        differences = settings_text.differences(stored.to_json(), config.to_json(), ignored=_PLACES)
        raise errors.MismatchError(
            f"{path}: another experiment was begun here. They differ in\n{differences}\n"
            "Ask for what is stored, or choose another --outdir."
        )


def read(folder: files.PathLike) -> LeaveOutConfig:
    """The config of a folder.

    Raises:
        MissingFileError: there is none.
        DamagedFileError: it is unsound.
    """
    path = pathlib.Path(folder) / CONFIG_NAME
    if not path.is_file():
        raise errors.MissingFileError(f"{path}: no such file; expected a folder that ground_truth_effects has written")
    return LeaveOutConfig.from_json(files.read_json(path), str(path))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
