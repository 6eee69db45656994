"""What `compute_ntk` is asked, as one frozen object; needs no TensorFlow."""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

from scripts.unique_information import network_source, scoring_config
from zoo import errors

KINDS = {
    "full": "all pairs of outputs, [n k, m k], row = example * k + output",
    "trace": "summed over outputs, [n, m]",
    "mean_trace": "the same divided by k",
    "diagonal": "squared norm of the gradient of each output, [n, k]",
    "blocks": "each example with itself, [n, k, k]",
}
BY_EXAMPLE = ("diagonal", "blocks")
SIDES = ("train", "val")
KERNEL_NAME = "kernel"


@dataclasses.dataclass(frozen=True)
class KernelConfig:
    """A tangent kernel, or features of it.

    Attributes:
        outdir: folder of the results.
        source: which network, on which examples.
        kind: one of `KINDS`.
        rows: "train" or "val" (of a run or a user's model: test), the examples of the rows.
        columns: the examples of the columns; None for those of the rows.
        row_places: places among the examples of the rows; None for all.
        column_places: the same of the columns.
        checkpoint: see `scoring_config.LinearisationConfig`, as all up to kernel_dtype.
        head: regular expression of the parameters.
        projection: "none", or how gradients are projected to features, which are then written in place of a kernel.
        num_features: of a projection.
        projection_seed: of it.
        kernel_dtype: of gradients and products.
        memory_limit_mb: of what is computed at a time, and of the spectrum.
    """

    outdir: str
    source: network_source.NetworkSource
    kind: str = "full"
    rows: str = "train"
    columns: str | None = None
    row_places: tuple[int, ...] | None = None
    column_places: tuple[int, ...] | None = None
    checkpoint: str = "first"
    head: str = ""
    projection: str = "none"
    num_features: int = 2000
    projection_seed: int = 0
    kernel_dtype: str = "auto"
    memory_limit_mb: float = 4096.0

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if self.kind not in KINDS:
            raise errors.InvalidValueError(f"--kind={self.kind}: expected one of {', '.join(KINDS)}")
        for name in ("rows", "columns"):
            if getattr(self, name) not in (*SIDES, *((None,) if name == "columns" else ())):
                raise errors.InvalidValueError(f"--{name}={getattr(self, name)}: expected one of {', '.join(SIDES)}")
        if self.memory_limit_mb <= 0:
            raise errors.InvalidValueError(f"--memory_limit_mb={self.memory_limit_mb:g}: expected a number above 0")
        one_side = "--projection" if self.projection != "none" else f"--kind={self.kind}"
        if (self.projection != "none" or self.kind in BY_EXAMPLE) and not self.is_square:
            raise errors.InvalidValueError(
                f"{one_side}: is of the examples of the rows alone; leave --columns and --column_ids out"
            )
        if self.projection != "none" and self.kind != "full":
            raise errors.InvalidValueError(
                f"--kind={self.kind}: says nothing beside --projection, which writes features; leave it out"
            )
        self.linearisation()

    @property
    def is_square(self) -> bool:
        """Whether the columns are the rows."""
        return self.columns is None and self.column_places is None

    @property
    def directory(self) -> pathlib.Path:
        """Of the results."""
        return pathlib.Path(self.outdir)

    @property
    def kernel_directory(self) -> pathlib.Path:
        """Of the arrays."""
        return self.directory / KERNEL_NAME

    def linearisation(self) -> scoring_config.LinearisationConfig:
        """At which weights, by which parameters."""
        return scoring_config.LinearisationConfig(
            checkpoint=self.checkpoint,
            head=self.head,
            projection=self.projection,
            num_features=self.num_features,
            projection_seed=self.projection_seed,
            kernel_dtype=self.kernel_dtype,
        )

    def decisive(self) -> dict[str, Any]:
        """What decides the results, as JSON."""
        linearisation = {name: value for name, value in self.linearisation().to_json().items() if name != "form"}
        sides = {name: getattr(self, name) for name in ("kind", "rows", "columns", "row_places", "column_places")}
        return dict(json.loads(json.dumps({**self.source.decisive(), **sides, "linearisation": linearisation})))

    def to_json(self) -> dict[str, Any]:
        """All of it; `from_json` is the inverse."""
        names = {field.name for field in dataclasses.fields(self)} - {"source"}
        return {**{name: getattr(self, name) for name in sorted(names)}, "source": self.source.to_json()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "KernelConfig":
        """What `to_json` made."""
        places = {
            name: None if stored[name] is None else tuple(stored[name]) for name in ("row_places", "column_places")
        }
        return cls(**{**stored, **places, "source": network_source.NetworkSource.from_json(stored["source"])})
