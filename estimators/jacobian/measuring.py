"""Any number of metrics, normalisations and places in one pass over the examples.

    measurer = measuring.Measurer(
        function,
        metrics=("jacobian", "jacobian_operator_norm", "crossentropy"),
        normalisations=("none", "softmax"),
        places={"shift": places.Shifts()},
        averages=("path",),
    )
    for shard in shards:
        statistics = measurer.measure(shard)       # compiled once, for all shards and checkpoints

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
_BATCHES_AT_ONCE = 16


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
        standard_errors: [N] float64 of values at the examples themselves that are estimated from random signs; None of
            all others. Averages have theirs in the details, and those of estimated values include them.
        is_estimated: values come from random signs.
    """

    metric: str
    normalisation: str
    place: str
    average: str
    values: np.ndarray
    details: averages_lib.Average | None = None
    lengths: np.ndarray | None = None
    num_unconverged: int = 0
    standard_errors: np.ndarray | None = None
    is_estimated: bool = False


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


class Measurer:
    """Statistics of one function, compiled once: for any number of batches, shards and checkpoints.

    A model whose variables are restored or trained on in between is measured as it is then.
    """

    def __init__(
        self,
        function: functions.Function,
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
        memory_limit_mb: float = 1024.0,
    ) -> None:
        """Checks the settings; compiles at the first use.

        Args:
            function: what is differentiated.
            metrics: names in `METRICS`: Frobenius and operator norm of dg/dx, nuclear norm, stable rank and condition
                number; -log p_y in nats, 0 or 1, and |onehot(y) - p| from 0 to sqrt 2; changes over copies.
            normalisations: names in `normalisations.NAMES`, what g is.
            target_logit_only: of the label's entry of g alone.
            places: further places by name; the examples themselves are always measured.
            averages: names in `averages.NAMES`, over each place.
            jitter: copies of tangent metrics, which are measured at the examples alone.
            method: "gram" for K backward passes that give everything; "products" for operator norms by iteration and
                Frobenius norms by random signs, whatever K; "auto" for the one that takes fewer passes.
            config: of the iteration; its batch size is replaced by `batch_size`.
            num_samples: random signs of each Frobenius norm.
            batch_size: points at a time at most, of all replicas together.
            memory_limit_mb: of Jacobians, or vectors of the iteration, that are held at a time; batches are smaller
                where they would take more. A model's activations come on top.

        Raises:
            InvalidArgumentError: a name or number cannot be, a metric needs the spectrum, which `method` does not give,
                or one point takes more memory than the limit.
        """
        self._function, self._places, self._averages = function, dict(places or {}), tuple(averages)
        _check_names(metrics, normalisations, self._places, averages)
        names = tuple(dict.fromkeys(normalisations))
        self._batch_size, self._tangent_metrics = batch_size, [name for name in TANGENT_METRICS if name in metrics]
        at_points = [name for name in dict.fromkeys(metrics) if name not in TANGENT_METRICS]
        self._evaluator = None
        if at_points:
            self._evaluator = pointwise.Evaluator(
                function,
                at_points,
                names,
                target_logit_only=target_logit_only,
                method=method,
                config=dataclasses.replace(config or lanczos.Config(), batch_size=batch_size),
                num_samples=num_samples,
                memory_limit_mb=memory_limit_mb,
            )
        self._tangents = None
        if self._tangent_metrics:
            self._tangents = tangents.Estimator(
                function,
                names,
                target_logit_only=target_logit_only,
                jitter=jitter,
                with_hessian="tangent_hessian" in metrics,
                batch_size=batch_size,
                memory_limit_mb=memory_limit_mb,
            )

    def measure(self, data: Any, *, progress: gradient_products.Progress = gradient_products.no_progress) -> Statistics:
        """Statistics at every example and around it.

        Args:
            data: `examples.Examples` or (inputs, labels).
            progress: called with (examples done, all).

        Returns:
            The statistics.

        Raises:
            InvalidArgumentError: a label cannot be, or inputs are none that a place or copy can be made of.
            MismatchError: inputs have another shape or dtype than the function's.
            NotFiniteError: a value is no number.
        """
        data, columns = functions.checked(self._function, data), []
        if self._evaluator is not None:
            columns += _at_points(self._evaluator, data, self._places, self._averages, self._batch_size, progress)
        if self._tangents is not None:
            for name, found in self._tangents.run(data).items():
                for metric, values in (("tangent_jacobian", found.jacobian), ("tangent_hessian", found.hessian)):
                    if metric in self._tangent_metrics and values is not None:
                        columns.append(Column(metric, name, AT_EXAMPLE, "", values))
        return Statistics(data.ids, data.labels, tuple(columns))


def measure(
    function: functions.Function,
    data: Any,
    *,
    progress: gradient_products.Progress = gradient_products.no_progress,
    **settings: Any,
) -> Statistics:
    """Statistics at every example and around it, once; `Measurer` serves several data sets and checkpoints.

    Args:
        function: what is differentiated.
        data: `examples.Examples` or (inputs, labels).
        progress: called with (examples done, all).
        **settings: of `Measurer`.

    Raises:
        InvalidArgumentError, MismatchError, NotFiniteError: see `Measurer`.
    """
    return Measurer(function, **settings).measure(data, progress=progress)


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
    for batch in data.batches(max(1, _BATCHES_AT_ONCE * batch_size // num_points)):
        parts.append(_Part.of(evaluator, batch, places))
        progress(done := done + len(batch), len(data))
    columns = []
    for key in parts[0].values:
        values = np.concatenate([part.values[key] for part in parts])
        unconverged = np.concatenate([part.unconverged[key] for part in parts])
        num_unconverged = int(unconverged[:, 0].sum())
        is_estimated = key in parts[0].standard_errors
        deviations = np.concatenate([part.standard_errors[key][:, 0] for part in parts]) if is_estimated else None
        columns.append(
            Column(
                *key,
                AT_EXAMPLE,
                "",
                values[:, 0],
                num_unconverged=num_unconverged,
                standard_errors=deviations,
                is_estimated=is_estimated,
            )
        )
        first = 1
        for name, place in places.items():
            shape = (len(values), place.num_directions, place.num_anchors)
            here = slice(first, first := first + shape[1] * shape[2])
            lengths = np.concatenate([part.lengths[name] for part in parts])
            at_example = np.broadcast_to(values[:, :1, None], (*shape[:2], 1))
            along = np.concatenate([at_example, values[:, here].reshape(shape)], axis=2)
            num = num_unconverged + int(unconverged[:, here].sum())
            columns += [_averaged(key, name, average, along, lengths, num, deviations) for average in averages]
    return columns


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """Values [b, points] of some examples by metric and normalisation; lengths by place."""

    values: dict[pointwise.Key, np.ndarray]
    unconverged: dict[pointwise.Key, np.ndarray]
    standard_errors: dict[pointwise.Key, np.ndarray]
    lengths: dict[str, np.ndarray]

    @classmethod
    def of(
        cls,
        evaluator: pointwise.Evaluator,
        batch: examples.Examples,
        places: Mapping[str, places_lib.Place],
    ) -> "_Part":
        """All points of the examples of a batch."""
        found = {name: place.points(batch.inputs, batch.ids) for name, place in places.items()}
        shape = batch.inputs.shape[1:]
        points = [batch.inputs[:, None], *(one.inputs.reshape([len(batch), -1, *shape]) for one in found.values())]
        inputs = np.concatenate(points, axis=1)
        num = inputs.shape[1]
        owners = np.stack([np.repeat(batch.ids, num), np.tile(np.arange(num), len(batch))], axis=1)
        at_points = evaluator.run(inputs.reshape([-1, *shape]), np.repeat(batch.labels, num), owners)

        def rows(flat: dict[pointwise.Key, np.ndarray]) -> dict[pointwise.Key, np.ndarray]:
            return {key: array.reshape([-1, num]) for key, array in flat.items()}

        return cls(
            rows(at_points.values),
            rows(at_points.unconverged),
            rows(at_points.standard_errors),
            {name: one.lengths for name, one in found.items()},
        )


def _averaged(
    key: pointwise.Key,
    place: str,
    average: str,
    values: np.ndarray,
    lengths: np.ndarray,
    num_unconverged: int,
    deviations: np.ndarray | None,
) -> Column:
    """An average of values [N, M, A + 1]; `deviations` [N] are errors at the example itself, of estimated values."""
    common: dict[str, Any] = {"num_unconverged": num_unconverged, "is_estimated": deviations is not None}
    if average == "raw":
        return Column(*key, place, average, values, lengths=lengths, **common)
    compute: dict[str, Callable[[np.ndarray], averages_lib.Average]] = {
        "euclidean": averages_lib.euclidean,
        "path": lambda v: averages_lib.path(v, lengths),
        "cumulative": lambda v: averages_lib.cumulative(v, lengths),
    }
    found = compute[average](values)
    if deviations is not None:
        # The value at the example is a part of every direction, so that its error does not show in their spread.
        alone = np.zeros_like(values)
        alone[:, :, 0] = 1.0
        shares = compute[average](alone).values
        shared = shares * deviations.reshape([-1] + [1] * (shares.ndim - 1))
        found = dataclasses.replace(found, standard_errors=np.hypot(found.standard_errors, shared))
    return Column(*key, place, average, found.values, details=found, **common)
