"""TRAK: what training examples did to outputs, by linearised models with projected gradients (Park et al., 2023).

For model m at its trained parameters, with measured outputs f and phi_i = P_m grad f(i) [d], P_m a random projection
that keeps inner products (`projections`), and Phi the phi_i of the examples that m was trained on, in rows:

    published   K_m = Phi^T Phi + lambda I
    output      K_m = Phi^T diag(w) Phi + lambda I
    score[i, t] = mean_m(phi_t^T K_m^-1 phi_i) mean_m(q_i)

where q_i = -d loss / d f and w_i = d^2 loss / d f^2 at example i: 1 - p_i and p_i (1 - p_i) for the margin
f = log(p / (1 - p)) of a classifier (arXiv:2303.14186), y_i - f_i and 1 for a regression output.

Positive: having i in training raises f of t, so for a margin it helps. In the "output" scaling the score is in units of
f: f(t) with i in training minus f(t) without, by one Newton step on the linearised model, whose objective is the sum of
the training losses + lambda / 2 |.|^2. The published scaling has no unit: only its order within a column counts.

For logistic regression without projection the scores in output units lie, against exact leave-one-out (digits 3 and 8,
300 examples, weight decay .05), at a correlation of .9997 with a slope of 1.056, and with the correction for leverage
at .99998 with .999.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import hashlib
import os
from typing import Any

import numpy as np
import scipy.linalg

from estimators import artifacts, cholesky, errors, examples, score_matrix, trak_features
from estimators.derivatives import plans
from estimators.projections import projected_gradients

SCALINGS = ("output", "published")


@dataclasses.dataclass(frozen=True)
class Config:
    """How scores are computed.

    Attributes:
        projection: of the gradients; each model has a map of its own.
        scaling: "output" or "published".
        ridge: lambda; None for what the training objective says: weight decay times the number of training examples for
            "output", 0 for "published".
        relative_ridge: is added to lambda after multiplication by the mean eigenvalue of the Gram matrix. The default
            keeps the matrix invertible where there are more dimensions than examples.
        leverage: divide by 1 - w_i phi_i^T K_m^-1 phi_i for examples that m was trained on (by 1 + ... for others): the
            Newton step then starts from the objective without i (with it), which is exact for squared errors.
        keep_features: hold the projected gradients of the training examples of all models, 4 d bytes each, rather than
            computing them again for the scores.

    Raises:
        InvalidArgumentError: a value lies outside what is allowed.
    """

    projection: projected_gradients.Config = projected_gradients.Config()  # noqa: RUF009
    scaling: str = "output"
    ridge: float | None = None
    relative_ridge: float = 1e-3
    leverage: bool = False
    keep_features: bool = False

    def __post_init__(self) -> None:
        if self.scaling not in SCALINGS:
            raise errors.InvalidArgumentError(f"scaling {self.scaling!r}: expected one of {', '.join(SCALINGS)}")
        for name, value in (("ridge", self.ridge), ("relative_ridge", self.relative_ridge)):
            if value is not None and not (np.isfinite(value) and value >= 0):
                raise errors.InvalidArgumentError(f"{name} {value}: must be a number from 0 up")
        if self.leverage and self.scaling != "output":
            raise errors.InvalidArgumentError(
                f"leverage with the scaling {self.scaling!r}: only 'output' has a Newton step to correct"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class _Fitted:
    """One model: the lower Cholesky factor of K_m [d, d], the fingerprint of its weights, and batches of the training
    examples if they are kept.
    """

    root: np.ndarray
    weights: str
    kept: tuple[trak_features.Batch, ...] | None


class Trak:
    """Scores by TRAK for one model or an ensemble.

        trak = Trak(plan, load=restore_run, num_models=50).fit(train, masks=subset_masks)
        trak.scores(train, test)                                       # [num_train, num_test]

    Attributes:
        config: how scores are computed.
        num_models: M.
    """

    def __init__(
        self,
        models: plans.Plan | Sequence[plans.Plan],
        config: Config = Config(),
        *,
        load: Callable[[int], None] | None = None,
        num_models: int | None = None,
        batch_size: int = 128,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Prepares; nothing is computed yet.

        Args:
            models: plans of targets that measure the margin and are trained on cross-entropy, or measure the output and
                are trained on the squared error; one plan for all models if they are loaded.
            config: how scores are computed.
            load: sets the parameters of the plan to those of model k = 0, 1, ..., such as those of one run of a zoo.
                They stay at those of the last model. One compiled function serves all.
            num_models: how many can be loaded.
            batch_size: examples at a time; bounds memory and changes nothing.
            progress: called with (models done, models in all) by `fit` and `scores`.

        Raises:
            InvalidArgumentError: several plans or no number of models beside `load`, or a number without it.
            InvalidTargetError: a target has another loss or measured output.
        """
        found = [models] if isinstance(models, plans.Plan) else list(models)
        loaded = load is not None and num_models is not None and num_models >= 1 and len(found) == 1
        if not loaded and (load is not None or num_models is not None):
            raise errors.InvalidArgumentError(
                f"{len(found)} plans, num_models {num_models} and load {load}: give plans alone, or one plan with a "
                "function load(k) and the number of models from 1 up that it knows"
            )
        if not found:
            raise errors.InvalidArgumentError("no plans: at least one model is needed")
        self.config, self.num_models = config, num_models or len(found)
        self._plans, self._load = found, load
        self._batch_size, self._progress = batch_size, progress
        self._compiled = [trak_features.make(plan, config.projection) for plan in found]
        self._fitted: list[_Fitted] = []
        self._ids, self._masks, self._examples = np.zeros(0, np.int64), np.zeros((0, 0), bool), ""

    def fit(self, train: Any, masks: np.ndarray | None = None) -> "Trak":
        """Computes the Gram matrix K_m of every model: a forward and a backward pass over the examples for each.

        Args:
            train: the training examples.
            masks: [num_models, num_train] bool, which examples each model was trained on; None for all.

        Returns:
            Itself. It holds 8 d^2 bytes for each model.

        Raises:
            MismatchError: the masks have another shape.
            InvalidArgumentError: the masks are not bool or leave a model without examples; the ridge does not follow
                from the weight decay because that differs between parameters.
            SolverError: a Gram matrix is singular.
            NotFiniteError: a gradient or an output is NaN or infinite.
        """
        data = examples.of(train)
        self._masks = _check_masks(masks, self.num_models, len(data))
        self._ids, self._fitted, self._examples = data.ids, [], data.fingerprint()
        for k in range(self.num_models):
            self._fitted.append(self._fit_model(k, data, self._masks[k]))
            self._progress(k + 1, self.num_models)
        return self

    def scores(self, train: Any, test: Any, out: np.ndarray | None = None) -> score_matrix.ScoreMatrix:
        """What every training example did to every test example's measured output.

        For each model a pass over the test examples and, unless features are kept, one over the training examples;
        8 d num_test bytes beside the result.

        Args:
            train: the examples that were fitted; those that a model was not trained on are scored by it all the same.
            test: the test examples; their labels say which margin is measured.
            out: floating array [num_train, num_test] to fill, such as a memory map; by default float64.

        Returns:
            The scores; see the module for sign and unit.

        Raises:
            InvalidArgumentError: nothing was fitted.
            MismatchError: the training examples or the weights are not those that were fitted, or `out` has another
                shape.
            NotFiniteError: a gradient or an output is NaN or infinite.
        """
        data, asked = self._check_train(train), examples.of(test)
        out = score_matrix.output_array(out, len(data), len(asked), np.float64)
        out[...] = 0.0
        slopes = np.zeros(len(data))
        for k, fitted in enumerate(self._fitted):
            self._set_fitted(k)
            tests = np.concatenate([batch.features for batch in self._batches(k, asked)])
            solved = scipy.linalg.cho_solve((fitted.root, True), tests.T)
            for batch in fitted.kept or self._batches(k, data):
                block = batch.features @ solved
                if self.config.leverage:
                    block /= self._shares(k, batch)[:, None]
                out[batch.rows] += (block / self.num_models).astype(out.dtype)
                slopes[batch.rows] += batch.slopes / self.num_models
            self._progress(k + 1, self.num_models)
        for start in range(0, len(data), self._batch_size):
            rows = slice(start, start + self._batch_size)
            out[rows] *= slopes[rows, None].astype(out.dtype)
        return self._labelled(out, data, asked)

    def _labelled(
        self, values: np.ndarray, train: examples.Examples, test: examples.Examples
    ) -> score_matrix.ScoreMatrix:
        measured, of_output = self._plan(0).target.measured_name, self.config.scaling == "output"
        return score_matrix.ScoreMatrix(
            values,
            train.ids,
            test.ids,
            method=f"TRAK of {self.num_models} model{'s' if self.num_models > 1 else ''}",
            quantity=f"having the training example raises the {measured} of the test example",
            unit=measured if of_output else "arbitrary: only the order within a column counts",
            lower_is_better=False,
            config=self._origin(),
        )

    def _as_config(self) -> dict[str, Any]:
        target = self._plan(0).target
        masks = hashlib.sha256(np.packbits(self._masks).tobytes()).hexdigest()
        return {
            **dataclasses.asdict(self.config),
            "num_models": self.num_models,
            "masks": masks,
            "measured": target.measured_name,
            "loss": target.loss.name,
        }

    def self_scores(self, train: Any) -> np.ndarray:
        """[num_train] float64: each example's score for its own measured output, without solving for all.

        Large for examples that the model would not get right without having seen them: wrong labels, rare cases. For a
        classifier >= 0. Args, Raises: see `scores`.
        """
        data = self._check_train(train)
        products, slopes = np.zeros(len(data)), np.zeros(len(data))
        for k, fitted in enumerate(self._fitted):
            self._set_fitted(k)
            for batch in fitted.kept or self._batches(k, data):
                values = cholesky.quadratic_forms(fitted.root, batch.features)
                if self.config.leverage:
                    values = values / self._shares(k, batch)
                products[batch.rows] += values / self.num_models
                slopes[batch.rows] += batch.slopes / self.num_models
            self._progress(k + 1, self.num_models)
        return products * slopes

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Stores the Gram matrices of all models, 8 d^2 bytes each, with what they are of.

        Args:
            folder: a new folder.
            overwrite: replace it if it is there.

        Raises:
            InvalidArgumentError: the folder is there, or nothing was fitted.
        """
        self._check_fitted()
        arrays = {f"root-{k}": fitted.root for k, fitted in enumerate(self._fitted)}
        made_of = {"examples": self._examples} | self._origin()
        artifacts.save_arrays(folder, "trak", arrays, made_of, overwrite=overwrite)

    def load(self, folder: str | os.PathLike[str], train: Any, masks: np.ndarray | None = None) -> "Trak":
        """Takes what `save` stored in the place of `fit`.

        Args:
            folder: of `save`.
            train: the training examples, as they were fitted.
            masks: as they were.

        Returns:
            Itself; features are not kept.

        Raises:
            MismatchError: what is stored is of other models, weights, examples, masks or settings.
            DamagedArtifactError: a file is not what was written.
        """
        data = examples.of(train)
        self._masks, self._ids = _check_masks(masks, self.num_models, len(data)), data.ids
        self._examples, weights = data.fingerprint(), []
        for k in range(self.num_models):
            self._set(k)
            weights.append(artifacts.weights_fingerprint(self._plan(k).target))
        made_of = {"examples": self._examples} | self._as_config() | {"weights": weights}
        arrays = artifacts.load_arrays(folder, "trak", made_of)
        self._fitted = [_Fitted(arrays[f"root-{k}"], weights[k], None) for k in range(self.num_models)]
        return self

    def _origin(self) -> dict[str, Any]:
        return self._as_config() | {"weights": [fitted.weights for fitted in self._fitted]}

    def _fit_model(self, k: int, data: examples.Examples, mask: np.ndarray) -> _Fitted:
        self._set(k)
        gram, kept = np.zeros((0, 0)), []
        for batch in self._batches(k, data):
            if not gram.size:
                gram = np.zeros((batch.features.shape[1],) * 2, order="F")
            weights = batch.curvatures if self.config.scaling == "output" else np.ones(len(batch.slopes))
            rows = batch.features * np.sqrt(weights * mask[batch.rows])[:, None]
            # Half the operations of a product; the lower triangle is all that the Cholesky factor needs.
            gram = scipy.linalg.blas.dsyrk(1.0, rows.T, beta=1.0, c=gram, lower=True, overwrite_c=True)
            if self.config.keep_features:
                kept.append(dataclasses.replace(batch, features=batch.features.astype(self._kept_dtype(k))))
        ridge = self._ridge(k, int(mask.sum())) + self.config.relative_ridge * np.trace(gram) / len(gram)
        fingerprint = artifacts.weights_fingerprint(self._plan(k).target)
        return _Fitted(cholesky.root(gram, ridge), fingerprint, tuple(kept) if self.config.keep_features else None)

    def _kept_dtype(self, k: int) -> np.dtype:
        return np.dtype(self._plan(k).target.dtype.as_numpy_dtype if self._plan(k).target.dtype.size > 4 else "f4")

    def _plan(self, k: int) -> plans.Plan:
        return self._plans[0 if self._load else k]

    def _set(self, k: int) -> None:
        if self._load is not None:
            self._load(k)

    def _batches(self, k: int, data: examples.Examples) -> Iterator[trak_features.Batch]:
        draw = projected_gradients.draw(self._plan(k), self.config.projection, member=k)
        compiled = self._compiled[0 if self._load else k]
        return trak_features.batches(compiled, draw, data, self._batch_size, f"model {k}")

    def _set_fitted(self, k: int) -> None:
        """Sets the weights of a model, and refuses others than those that were fitted."""
        self._set(k)
        if artifacts.weights_fingerprint(self._plan(k).target) != self._fitted[k].weights:
            raise errors.MismatchError(
                f"the weights of model {k} are not those that were fitted; load the same models, or call fit again"
            )

    def _shares(self, k: int, batch: trak_features.Batch) -> np.ndarray:
        """[B], 1 - h for examples that the model was trained on, 1 + h for others; h is the example's leverage."""
        leverages = batch.curvatures * cholesky.quadratic_forms(self._fitted[k].root, batch.features)
        return np.where(self._masks[k][batch.rows], 1.0 - leverages, 1.0 + leverages)

    def _ridge(self, k: int, num_trained_on: int) -> float:
        if self.config.ridge is not None or self.config.scaling == "published":
            return self.config.ridge or 0.0
        decays = set(self._plan(k).target.weight_decay)
        if len(decays) > 1:
            raise errors.InvalidArgumentError(
                f"weight decay differs between parameters ({', '.join(map(str, sorted(decays)))}), so that no ridge "
                "follows from it; give ridge= in the config"
            )
        return decays.pop() * num_trained_on

    def _check_fitted(self) -> None:
        if not self._fitted:
            raise errors.InvalidArgumentError("nothing was fitted; call fit(train) first")

    def _check_train(self, train: Any) -> examples.Examples:
        data = examples.of(train)
        self._check_fitted()
        if not np.array_equal(data.ids, self._ids):
            raise errors.MismatchError(
                f"{len(data)} training examples whose ids are not those of the {len(self._ids)} that were fitted; give "
                "the same examples in the same order, or fit again"
            )
        return data


def _check_masks(masks: np.ndarray | None, num_models: int, num_train: int) -> np.ndarray:
    masks = np.ones((num_models, num_train), bool) if masks is None else np.asarray(masks)
    if masks.shape != (num_models, num_train):
        raise errors.MismatchError(
            f"masks of shape {masks.shape}: expected [{num_models}, {num_train}], a row for each model"
        )
    if masks.dtype != bool:
        raise errors.InvalidArgumentError(f"masks of dtype {masks.dtype}: expected bool, True for trained on")
    empty = np.flatnonzero(~masks.any(axis=1))
    if empty.size:
        raise errors.InvalidArgumentError(f"masks leave model {empty[0]} without training examples; leave it out")
    return masks
