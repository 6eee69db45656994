"""What `compute_influence_functions` is told, under the names by which its predecessors' users know it."""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

from zoo import errors

# As in `estimators.solvers.SOLVERS`, which takes TensorFlow along.
METHODS = (
    "explicit",
    "conjugate_gradient",
    "lissa",
    "lanczos",
    "arnoldi",
    "nystroem",
    "kfac",
    "ekfac",
    "ekfac_neumann",
    "identity",
)
MEASURED = ("loss", "margin", "logit", "probability", "output")

PER_TEST_EXAMPLE, ALL_GRADIENTS = MODES = ("per_test_example", "all_gradients")
JSON_CHOICES = ("auto", "yes", "no")
COMPATIBILITIES = ("none", "published")
# Of the files in `outdir`, see influence_files.py.
CONFIG_NAME = "config.json"
FACTORS_NAME = "factors"
SCORES_NAME = "scores"
TOP_NAME = "top_influence.npz"
AVERAGE_NAME = "average_influence.npz"
GALLERY_NAME = "gallery.html"
# With "auto": 3 lists of so many numbers, some 30 bytes together.
_LARGEST_JSON = 3 * 10**7


@dataclasses.dataclass(frozen=True)
class InfluenceConfig:
    """How influence functions are computed, of which test examples, and what is kept.

    Attributes:
        outdir: folder of the results.
        method: the solver, one of `METHODS`.
        measured: what of a test example is predicted: loss, margin, logit, probability or output.
        mode: "per_test_example": gradients of the training examples are formed again for every block of test examples
            and never held together; "all_gradients": formed once and kept on the disk below `save_pth`.
        test_sample_num: test examples of each class; None for all.
        test_sample_start_per_class: how many of each class are passed over.
        test_ids: these test examples, whatever their class; None to choose by class.
        recursion_depth: steps of LiSSA; with `r` their product should be the number of training examples or more.
        r: repeats of LiSSA, averaged.
        damp: damping, added to every eigenvalue of the curvature; "identity" has no curvature, and no damping.
        scale: of LiSSA, above the largest eigenvalue of the curvature of a batch; None to have it chosen.
        seed: of everything that is drawn.
        compat: "published": the recursion of LiSSA as first published, whose damping is damp times scale.
        tolerance: LiSSA takes fewer steps and repeats once its result moves by less than this share of itself; 0:
            always all.
        options: further settings of the method, such as {"rank": 200}.
        save_pth: folder in which inverse-Hessian test gradients (s_test), and with "all_gradients" the gradients of the
            training examples (grad_z), are kept; None for neither.
        max_save_gb: the most that these may take.
        log_filename: file that is told what was done; None for none.
        gpu: number of the GPU for a call from Python, which the program chooses by --device; -1 for none.
        batch_size: training examples that are differentiated at a time.
        memory_limit_mb: of gradients, right-hand sides and solutions.
        top_k: most helpful and most harmful training examples of each test example that are kept apart.
        json: whether the JSON file is written: "yes", "no", or "auto", where it stays below a gigabyte.
        num_shown: test examples in the gallery.
        num_neighbours: training images on either side of each.
        overwrite: delete results of another config.

    Raises:
        InvalidValueError: a value lies outside what is allowed.
    """

    outdir: str = "outdir"
    method: str = "ekfac"
    measured: str = "loss"
    mode: str = PER_TEST_EXAMPLE
    test_sample_num: int | None = None
    test_sample_start_per_class: int = 0
    test_ids: tuple[int, ...] | None = None
    recursion_depth: int = 5000
    r: int = 1
    damp: float = 0.01
    scale: float | None = 25.0
    seed: int = 42
    compat: str = "none"
    tolerance: float = 0.0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    save_pth: str | None = None
    max_save_gb: float = 10.0
    log_filename: str | None = None
    gpu: int = -1
    batch_size: int = 256
    memory_limit_mb: float = 2048.0
    top_k: int = 100
    json: str = "auto"
    num_shown: int = 20
    num_neighbours: int = 8
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be before anything is loaded."""
        for name, known in (
            ("method", METHODS),
            ("measured", MEASURED),
            ("mode", MODES),
            ("json", JSON_CHOICES),
            ("compat", COMPATIBILITIES),
        ):
            if getattr(self, name) not in known:
                raise errors.InvalidValueError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(known)}")
        self._check_numbers()
        if self.mode == ALL_GRADIENTS and self.save_pth is None:
            raise errors.InvalidValueError(
                f"mode {ALL_GRADIENTS}: the gradients are kept in the folder save_pth; name it, or use the mode "
                f"{PER_TEST_EXAMPLE}, which keeps none"
            )
        if self.compat == "published" and self.method != "lissa":
            raise errors.InvalidValueError(
                f"compat published: means LiSSA's recursion, not {self.method}; leave it out"
            )
        if self.compat == "published" and self.scale is None:
            raise errors.InvalidValueError("compat published: its damping is damp times scale, so name the scale")
        if self.test_ids is not None and (self.test_sample_num is not None or self.test_sample_start_per_class):
            raise errors.InvalidValueError(
                "test_ids beside test_sample_num or test_sample_start_per_class: give the ids, or choose by class"
            )

    def _check_numbers(self) -> None:
        for name, least in (
            ("test_sample_num", 1),
            ("test_sample_start_per_class", 0),
            ("recursion_depth", 1),
            ("r", 1),
            ("seed", 0),
            ("gpu", -1),
            ("batch_size", 1),
            ("top_k", 1),
            ("num_shown", 0),
            ("num_neighbours", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise errors.InvalidValueError(f"{name} {value}: must be at least {least}")
        if not 0 <= self.damp < float("inf"):
            raise errors.InvalidValueError(f"damp {self.damp}: must be a number from 0 up")
        if self.scale is not None and not 0 < self.scale < float("inf"):
            raise errors.InvalidValueError(f"scale {self.scale}: must be a number above 0, or auto")
        if not 0 <= self.tolerance < 1:
            raise errors.InvalidValueError(f"tolerance {self.tolerance}: must be from 0 to below 1")
        for name in ("memory_limit_mb", "max_save_gb"):
            if not getattr(self, name) > 0:
                raise errors.InvalidValueError(f"{name} {getattr(self, name)}: must be above 0")

    @property
    def effective_damping(self) -> float | None:
        """What is added to the eigenvalues; None where there is no curvature."""
        if self.method == "identity":
            return None
        return self.damp * self.scale if self.compat == "published" and self.scale is not None else self.damp

    def writes_json(self, num_train: int, num_test: int) -> bool:
        """Whether the JSON file is written."""
        return self.json == "yes" or (self.json == "auto" and num_train * num_test <= _LARGEST_JSON)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON gives it back; `from_json` is the inverse."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "InfluenceConfig":
        """What `to_json` made."""
        ids = stored["test_ids"]
        return cls(**{**stored, "test_ids": None if ids is None else tuple(ids)})

    @property
    def directory(self) -> pathlib.Path:
        """`outdir` as a path."""
        return pathlib.Path(self.outdir)
