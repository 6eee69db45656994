"""Any number of metrics, normalisations and places in one pass over the examples.

    columns = measuring.measure(
        function,
        (images, labels),
        metrics=("jacobian", "jacobian_operator_norm", "crossentropy"),
        normalisations=("none", "softmax"),
        places={"shift": places.Shifts()},
        averages=("path",),
    )

Each point is passed through the network once, whatever is asked about it.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from estimators import errors, examples, gradient_products
from estimators.jacobian import averages as averages_lib
from estimators.jacobian import functions, lanczos, pointwise, tangents
from estimators.jacobian import normalisations as normalisations_lib
from estimators.jacobian import places as places_lib

AT_EXAMPLE = "example"
TANGENT_METRICS = ("tangent_jacobian", "tangent_hessian")
METRICS = (*pointwise.SPECTRUM_METRICS, *pointwise.OUTPUT_METRICS, *TANGENT_METRICS)
# Points of so many batches are there at a time: an iteration over points fills the slots of those that are done.
_BATCHES_AT_ONCE = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """One statistic of N examples.

    Attributes:
        metric: name in `METRICS`.
        normalisation: name in `normalisations.NAMES`; "" for metrics of the outputs.
        place: name of the place; "example" is the example itself.
        average: name in `averages.NAMES`; "" at the example itself.
        values: [N] float64; [N, A] for "cumulative", [N, M, A + 1] for "raw".
        details: standard errors, counts of paths and quadrature errors, see `averages.Average`; None without them.
        lengths: [N, M, A] for "raw", of the steps between points; None otherwise.
        num_unconverged: values whose iteration ended above its tolerance.
    """

    metric: str
    normalisation: str
    place: str
    average: str
    values: np.ndarray
    details: averages_lib.Average | None = None
    lengths: np.ndarray | None = None
    num_unconverged: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Columns over the same examples.

    Attributes:
        ids: [N] int64.
        labels: [N] int64.
        columns: of every metric, normalisation, place and average that were asked for.
    """

    ids: np.ndarray
    labels: np.ndarray
    columns: tuple[Column, ...]

    def column(self, metric: str, normalisation: str = "", place: str = AT_EXAMPLE, average: str = "") -> Column:
        """The column of these names.

        Raises:
            InvalidArgumentError: it was not measured.
        """
        wanted = (metric, normalisation, place, average)
        names = {(c.metric, c.normalisation, c.place, c.average): c for c in self.columns}
        if wanted not in names:
            raise errors.InvalidArgumentError(f"column {wanted} was not measured; there are {sorted(names)}")
        return names[wanted]


def measure(
    function: functions.Function,
    data: Any,
    *,
    metrics: Sequence[str] = ("jacobian_operator_norm",),
    normalisations: Sequence[str] = ("none",),
    target_logit_only: bool = False,
    places: Mapping[str, places_lib.Place] | None = None,
    averages: Sequence[str] = ("euclidean",),
    jitter: tangents.Jitter | None = None,
    method: str = "auto",
    config: lanczos.Config | None = None,
    num_samples: int = 16,
    batch_size: int = 32,
    progress: gradient_products.Progress = gradient_products.no_progress,
) -> Statistics:
    """Statistics at every example and around it.

    Args:
        function: what is differentiated.
        data: `examples.Examples` or (inputs, labels).
        metrics: names in `METRICS`: Frobenius and operator norm of dg/dx, nuclear norm, stable rank and condition
            number; -log p_y in nats, 0 or 1, and |onehot(y) - p| from 0 to sqrt 2; changes over copies.
        normalisations: names in `normalisations.NAMES`, what g is.
        target_logit_only: of the label's entry of g alone.
        places: further places by name; the examples themselves are always measured.
        averages: names in `averages.NAMES`, over each place.
        jitter: copies of tangent metrics, which are measured at the examples alone.
        method: "gram" for K backward passes that give everything; "products" for operator norms by iteration and
            Frobenius norms by random signs, whatever K; "auto" for the one that takes fewer passes.
        config: of the iteration.
        num_samples: random signs of each Frobenius norm.
        batch_size: points at a time.
        progress: called with (examples done, all).

    Returns:
        The statistics.

    Raises:
        InvalidArgumentError: a name or label cannot be, or a metric needs the spectrum, which `method` does not give.
        NotFiniteError: a value is no number.
    """
    data, places = functions.checked(function, data), dict(places or {})
    _check_names(metrics, normalisations, places, averages)
    columns = []
    at_points = [name for name in dict.fromkeys(metrics) if name not in TANGENT_METRICS]
    if at_points:
        evaluator = pointwise.Evaluator(
            function,
            at_points,
            list(dict.fromkeys(normalisations)),
            target_logit_only=target_logit_only,
            method=method,
            config=dataclasses.replace(config or lanczos.Config(), batch_size=batch_size),
            num_samples=num_samples,
        )
        columns += _at_points(evaluator, data, places, averages, batch_size, progress)
    for normalisation in normalisations if set(metrics) & set(TANGENT_METRICS) else ():
        with_hessian = "tangent_hessian" in metrics
        # Every copy of an example is a point.
        size = max(1, batch_size // ((jitter or tangents.Jitter()).num_copies + 1))
        found = tangents.measure(
            function,
            data,
            normalisation,
            target_logit_only=target_logit_only,
            jitter=jitter,
            with_hessian=with_hessian,
            batch_size=size,
        )
        for name, values in (("tangent_jacobian", found.jacobian), ("tangent_hessian", found.hessian)):
            if name in metrics and values is not None:
                columns.append(Column(name, normalisation, AT_EXAMPLE, "", values))
    return Statistics(data.ids, data.labels, tuple(columns))


def _check_names(
    metrics: Sequence[str], normalisations: Sequence[str], places: Mapping[str, Any], averages: Sequence[str]
) -> None:
    named = {
        "metrics": (metrics, METRICS),
        "normalisations": (normalisations, normalisations_lib.NAMES),
        "averages": (averages, averages_lib.NAMES),
    }
    for argument, (names, allowed) in named.items():
        wrong = [name for name in names if name not in allowed]
        if wrong or not names:
            raise errors.InvalidArgumentError(f"{argument} {wrong or 'empty'}: expected some of {', '.join(allowed)}")
    if AT_EXAMPLE in places:
        raise errors.InvalidArgumentError(f"a place is called {AT_EXAMPLE!r}, as the example itself is; rename it")


def _at_points(
    evaluator: pointwise.Evaluator,
    data: examples.Examples,
    places: Mapping[str, places_lib.Place],
    averages: Sequence[str],
    batch_size: int,
    progress: gradient_products.Progress,
) -> list[Column]:
    """Columns of the metrics that belong to points."""
    num_points = 1 + sum(place.num_directions * place.num_anchors for place in places.values())
    parts, done = [], 0
    for batch, count in gradient_products.even_batches(data, max(1, _BATCHES_AT_ONCE * batch_size // num_points)):
        parts.append(_Part.of(evaluator, batch, places, count))
        progress(done := done + count, len(data))
    columns = []
    for key in parts[0].values:
        values = np.concatenate([part.values[key] for part in parts])
        unconverged = np.concatenate([part.unconverged[key] for part in parts])
        columns.append(Column(*key, AT_EXAMPLE, "", values[:, 0], num_unconverged=int(unconverged[:, 0].sum())))
        first = 1
        for name, place in places.items():
            shape = (len(values), place.num_directions, place.num_anchors)
            here = slice(first, first := first + shape[1] * shape[2])
            lengths = np.concatenate([part.lengths[name] for part in parts])
            at_example = np.broadcast_to(values[:, :1, None], (*shape[:2], 1))
            along = np.concatenate([at_example, values[:, here].reshape(shape)], axis=2)
            num = int(unconverged[:, 0].sum() + unconverged[:, here].sum())
            columns += [_averaged(key, name, average, along, lengths, num) for average in averages]
    return columns


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """Values [b, points] of some examples by metric and normalisation; lengths by place."""

    values: dict[pointwise.Key, np.ndarray]
    unconverged: dict[pointwise.Key, np.ndarray]
    lengths: dict[str, np.ndarray]

    @classmethod
    def of(
        cls,
        evaluator: pointwise.Evaluator,
        batch: examples.Examples,
        places: Mapping[str, places_lib.Place],
        count: int,
    ) -> "_Part":
        """All points of the first `count` examples of a batch."""
        found = {name: place.points(batch.inputs, batch.ids) for name, place in places.items()}
        shape = batch.inputs.shape[1:]
        points = [batch.inputs[:, None], *(one.inputs.reshape([len(batch), -1, *shape]) for one in found.values())]
        inputs = np.concatenate(points, axis=1)
        num = inputs.shape[1]
        owners = np.stack([np.repeat(batch.ids, num), np.tile(np.arange(num), len(batch))], axis=1)
        values, unconverged = evaluator.values(inputs.reshape([-1, *shape]), np.repeat(batch.labels, num), owners)

        def rows(flat: dict[pointwise.Key, np.ndarray]) -> dict[pointwise.Key, np.ndarray]:
            return {key: array.reshape([-1, num])[:count] for key, array in flat.items()}

        return cls(rows(values), rows(unconverged), {name: one.lengths[:count] for name, one in found.items()})


def _averaged(
    key: pointwise.Key, place: str, average: str, values: np.ndarray, lengths: np.ndarray, num_unconverged: int
) -> Column:
    if average == "raw":
        return Column(*key, place, average, values, lengths=lengths, num_unconverged=num_unconverged)
    compute: dict[str, Callable[[], averages_lib.Average]] = {
        "euclidean": lambda: averages_lib.euclidean(values),
        "path": lambda: averages_lib.path(values, lengths),
        "cumulative": lambda: averages_lib.cumulative(values, lengths),
    }
    found = compute[average]()
    return Column(*key, place, average, found.values, details=found, num_unconverged=num_unconverged)
