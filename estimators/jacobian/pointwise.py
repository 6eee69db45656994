"""Values of points, each passed through the network once for all metrics and normalisations."""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from estimators import errors, examples
from estimators.jacobian import batching, functions, gram, hutchinson, lanczos, normalisations, operator_norms, spectra

# Of logits alone.
OUTPUT_METRICS = ("crossentropy", "accuracy", "confidence")
# Of one spectrum; the first two can be had without it.
SPECTRUM_METRICS = ("jacobian", "jacobian_operator_norm", "nuclear_norm", "stable_rank", "condition_number")
_BY_PRODUCTS = SPECTRUM_METRICS[:2]
METHODS = ("auto", "gram", "products")
# More outputs than this make J J^T dear; iterating to one norm is as dear as so many backward passes.
_MOST_OUTPUTS, _PASSES_OF_A_NORM = 128, 48

# (metric, normalisation); "" for metrics of the outputs.
Key = tuple[str, str]
_Values = dict[Key, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """Metrics of n points by metric and normalisation.

    Attributes:
        values: [n] float64.
        unconverged: [n] bool, whether an iteration ended above its tolerance.
        standard_errors: [n] float64, of those that are estimated from random signs; the others are not there.
    """

    values: _Values
    unconverged: _Values
    standard_errors: _Values


def choose(num_outputs: int, metrics: Sequence[str], sizes: Sequence[int], method: str) -> str:
    """The method, "gram" or "products", that takes fewer passes; an estimate replaces exact values for large K alone.

    Args:
        num_outputs: K.
        metrics: names in SPECTRUM_METRICS and OUTPUT_METRICS.
        sizes: Q of each normalisation, K or 1.
        method: name in METHODS.

    Raises:
        InvalidArgumentError: the method is unknown, or does not give a metric.
    """
    if method not in METHODS:
        raise errors.InvalidArgumentError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    whole = [name for name in metrics if name in SPECTRUM_METRICS and name not in _BY_PRODUCTS]
    if method == "products" and whole:
        raise errors.InvalidArgumentError(f"method 'products' gives no {', '.join(whole)}; 'gram' gives all values")
    if method != "auto" or whole:
        return "gram" if whole else method
    if "jacobian" in metrics and max(sizes) > 1:
        return "products" if num_outputs > _MOST_OUTPUTS else "gram"
    passes = sum(2 if size == 1 else _PASSES_OF_A_NORM for size in sizes)
    return "products" if num_outputs > min(passes, _MOST_OUTPUTS) else "gram"


class Evaluator:
    """Metrics of points under normalisations, compiled once."""

    def __init__(
        self,
        function: functions.Function,
        metrics: Sequence[str],
        names: Sequence[str],
        *,
        target_logit_only: bool,
        method: str,
        config: lanczos.Config,
        num_samples: int,
        memory_limit_mb: float,
    ) -> None:
        """Compiles at the first use.

        Args:
            function: what is differentiated.
            metrics: names in SPECTRUM_METRICS and OUTPUT_METRICS.
            names: of normalisations.
            target_logit_only: of the label's entry alone.
            method: name in METHODS.
            config: of iterations, and points at a time.
            num_samples: random signs of a Frobenius norm.
            memory_limit_mb: of what is held beside the activations: Jacobians, or vectors of the iteration.

        Raises:
            InvalidArgumentError: see `choose`; there are no points at a time, or one takes more than the limit.
        """
        self._function, self._only = function, target_logit_only
        self._of_spectrum = [name for name in metrics if name in SPECTRUM_METRICS]
        self._of_outputs = [name for name in metrics if name in OUTPUT_METRICS]
        self._names = names
        self._sizes = {name: normalisations.num_values(name, function.num_outputs, target_logit_only) for name in names}
        self._by_gram = choose(function.num_outputs, metrics, list(self._sizes.values()), method) == "gram"
        self._gram = gram.make(function)
        held = gram.bytes_per_example(function) if self._by_gram else operator_norms.bytes_per_example(function, config)
        most = min(config.batch_size, batching.most(held, memory_limit_mb))
        config = dataclasses.replace(config, batch_size=most)
        self._sizes_of_batches = batching.Sizes(most)
        self._outputs = function.compiled(lambda inputs, _: function.predict(inputs))
        self._solvers = {
            name: operator_norms.Solver(function, name, target_logit_only=target_logit_only, config=config)
            for name in ([] if self._by_gram else names)
        }
        options = {"num_samples": num_samples, "batch_size": config.batch_size, "seed": config.seed}
        self._estimators = {
            name: hutchinson.of_function(function, name, target_logit_only=target_logit_only, **options)
            for name in names
        }

    def run(self, inputs: np.ndarray, labels: np.ndarray, owners: np.ndarray) -> Found:
        """Metrics of points.

        Args:
            inputs: [n, ...].
            labels: [n] int64.
            owners: [n, m] integers that random vectors of a point belong to.

        Raises:
            NotFiniteError: a value is no number.
        """
        points = examples.Examples(inputs, labels)
        found: _Values = {}
        unconverged: _Values = {}
        deviations: _Values = {}
        if self._by_gram and self._of_spectrum:
            logits = self._spectra(points, found)
        else:
            batches = self._sizes_of_batches.batches(points) if self._of_outputs else ()
            logits = [self._outputs(batch.inputs, batch.labels).numpy()[:count] for batch, count in batches]
            self._products(points, owners, found, unconverged, deviations)
        if self._of_outputs:
            found |= self._output_metrics(np.concatenate(logits), labels)
        for key, values in found.items():
            # A condition number, or the rank of a Jacobian that is 0, may not be defined.
            if key[0] not in ("stable_rank", "condition_number"):
                operator_norms.check_finite(values, owners[:, 0], key[0])
        unconverged = {key: unconverged.get(key, np.zeros(len(inputs), bool)) for key in found}
        return Found(found, unconverged, deviations)

    def _spectra(self, points: examples.Examples, found: _Values) -> list[np.ndarray]:
        parts: dict[Key, list[np.ndarray]] = {}
        all_logits = []
        for batch, count in self._sizes_of_batches.batches(points):
            logits, products = (tensor.numpy()[:count] for tensor in self._gram(batch.inputs))
            all_logits.append(logits)
            operator_norms.check_finite(products.sum(axis=(1, 2)), batch.ids[:count], "the input Jacobian")
            for name in self._names:
                spectrum = spectra.of_gram(
                    products,
                    logits,
                    batch.labels[:count],
                    name,
                    target_logit_only=self._only,
                    itemsize=self._function.dtype.size,
                )
                for metric in self._of_spectrum:
                    parts.setdefault((metric, name), []).append(_of_spectrum(spectrum, metric))
        found |= {key: np.concatenate(rows) for key, rows in parts.items()}
        return all_logits

    def _products(
        self, points: examples.Examples, owners: np.ndarray, found: _Values, unconverged: _Values, deviations: _Values
    ) -> None:
        for name in self._names:
            # The two norms of a single row are the same number.
            by_norm = [m for m in self._of_spectrum if m == "jacobian_operator_norm" or self._sizes[name] == 1]
            if by_norm:
                norms = self._solvers[name].run(points, keys=owners)
                found |= {(metric, name): norms.values for metric in by_norm}
                unconverged |= {(metric, name): ~norms.converged for metric in by_norm}
            if "jacobian" in self._of_spectrum and "jacobian" not in by_norm:
                estimated = self._estimators[name].run(points, owners=owners)
                found["jacobian", name] = estimated.values
                deviations["jacobian", name] = estimated.standard_errors

    def _output_metrics(self, logits: np.ndarray, labels: np.ndarray) -> _Values:
        rows = np.arange(len(labels))
        logarithms = normalisations.log_probabilities(logits)
        compute: dict[str, Callable[[], np.ndarray]] = {
            "crossentropy": lambda: -logarithms[rows, labels],
            "accuracy": lambda: (logits.argmax(axis=1) == labels).astype(np.float64),
            "confidence": lambda: np.linalg.norm(np.eye(logits.shape[1])[labels] - np.exp(logarithms), axis=1),
        }
        return {(metric, ""): compute[metric]() for metric in self._of_outputs}


def _of_spectrum(spectrum: spectra.Spectra, metric: str) -> np.ndarray:
    attribute = {
        "jacobian": "frobenius_norms",
        "jacobian_operator_norm": "operator_norms",
        "nuclear_norm": "nuclear_norms",
        "stable_rank": "stable_ranks",
        "condition_number": "condition_numbers",
    }[metric]
    return getattr(spectrum, attribute)
