"""Influence functions (Koh & Liang, 2017): what leaving one training example out would do, to first order.

    fitted = influence_functions.InfluenceFunctions(target, "ekfac", damping=1e-3).fit(train)
    matrix = fitted.scores(train, test, of="measured")          # ScoreMatrix [num_train, num_test]
    own = fitted.self_scores(train)                             # [num_train]

With the training objective (1/n) sum_i l_i(theta) + 1/2 theta^T D theta at its minimum, C its curvature there (the
Hessian or what a solver puts in its place, weight decay D included) and g_i = grad l_i,

    score[i, t] = -(1/n) g_i^T (C + damping I)^-1 grad m_t

is the predicted measured output m_t with example i among the training examples minus without it (1/n being kept), in
units of m. For the loss, m = l, its negative is the effect of removal R(t, i) = +(1/n) g_i^T (C + damping I)^-1 g_t:
positive helps. Koh & Liang's up-weighting influence -g_t^T H^-1 g_i is n times the score of the loss.
"""

from collections.abc import Iterator
import os
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import (
    artifacts,
    errors,
    examples,
    fitted_curvature,
    gradient_products,
    score_matrix,
    solvers,
    solving,
    targets,
)
from estimators.curvature import solutions
from estimators.derivatives import per_example, plans


class InfluenceFunctions:
    """Scores of training examples by a target's gradients and the inverse of its curvature.

    Attributes:
        target: the target.
        settings: of the solver.
        blocks: how many examples are held at a time.
    """

    def __init__(
        self,
        target: targets.Target,
        solver: str | solving.Settings = "ekfac",
        *,
        batch_size: int = 256,
        memory_limit_mb: float = 2048.0,
        **options: Any,
    ) -> None:
        """Prepares; nothing is computed yet.

        Args:
            target: what is differentiated; its weights are those at which `fit` is called.
            solver: a name in `solvers.SOLVERS`, or settings.
            batch_size: training examples that are differentiated at a time, fewer if the memory allows no more.
            memory_limit_mb: of gradients, right-hand sides and solutions together; activations come on top.
            **options: of the solver, such as `damping`, which is added to the eigenvalues of the curvature.

        Raises:
            InvalidArgumentError: a solver or option is not known, or the memory does not hold one gradient.
        """
        self.target, self.settings = target, solvers.find(solver, options)
        self.blocks = gradient_products.choose_blocks(
            target.num_parameters, target.dtype.size, batch_size, memory_limit_mb
        )
        self._fitted: fitted_curvature.FittedCurvature | None = None

    def fit(self, train: Any) -> "InfluenceFunctions":
        """Prepares the inverse of the curvature over training examples.

        Args:
            train: the examples that the model was trained on, `examples.Examples` or (inputs, labels).

        Returns:
            Itself. The passes it takes are said by the settings of each solver.

        Raises:
            InvalidTargetError, InvalidArgumentError, NotFiniteError: see `plans.make`.
            SolverError: the curvature has no inverse with this damping.
        """
        problem = self._make_problem(train)
        self._set(problem, self.settings.prepare(problem))
        return self

    def _make_problem(self, train: Any) -> solving.Problem:
        data = examples.of(train)
        return solving.Problem(plans.make(self.target, data), data, self.blocks.train)

    def _set(self, problem: solving.Problem, prepared: solving.Prepared) -> None:
        self._fitted = fitted_curvature.FittedCurvature(
            problem,
            prepared,
            self.settings.make(problem, prepared),
            {of: per_example.make_gradients(problem.plan, of) for of in per_example.OF},
            artifacts.weights_fingerprint(self.target),
            self.blocks,
        )

    def fitted(self) -> fitted_curvature.FittedCurvature:
        """What `fit` made.

        Raises:
            InvalidArgumentError: `fit` was not called.
            MismatchError: the weights have changed since.
        """
        if self._fitted is None:
            raise errors.InvalidArgumentError("there is no curvature yet; call fit(train) first")
        if artifacts.weights_fingerprint(self.target) != self._fitted.weights:
            raise errors.MismatchError(
                "the weights have changed since fit(train), so that the curvature is not theirs; call fit(train) again"
            )
        return self._fitted

    def scores(
        self,
        train: Any,
        test: Any,
        of: str = "loss",
        *,
        out: np.ndarray | None = None,
        progress: gradient_products.Progress = gradient_products.no_progress,
    ) -> score_matrix.ScoreMatrix:
        """score[i, t] = -(1/n) g_i^T (C + damping I)^-1 grad m_t; see the module.

        Args:
            train: training examples to score, all of those that were fitted or some; n is that of `fit`.
            test: test examples.
            of: what of the test examples is predicted, "loss" or "measured" (the target's measured output).
            out: [num_train, num_test] floats to fill, such as a memory map; None for a new array.
            progress: called with (gradients of training examples done, all).

        Returns:
            The scores: positive raises what is measured, in its unit. One gradient and one solution for each test
            example, and one pass over the training examples for each block of `blocks.test` test examples.

        Raises:
            InvalidArgumentError: `of` is unknown, a label cannot be, or `fit` was not called.
            MismatchError: `out` has another shape, or the weights have changed.
            NotFiniteError, SolverError: a gradient is no number; the solver failed.
        """
        train, test = examples.of(train), examples.of(test)
        fitted = self.fitted()
        values = score_matrix.output_array(out, len(train), len(test), self.target.dtype.as_numpy_dtype)
        residuals, converged = np.empty(len(test)), np.empty(len(test), bool)
        num_blocks = -(-len(test) // self.blocks.test)
        for number, start in enumerate(range(0, len(test), self.blocks.test)):
            columns = slice(start, min(start + self.blocks.test, len(test)))
            found = list(self.solutions(test.take(columns), of))
            residuals[columns] = np.concatenate([one.residuals for one in found])
            converged[columns] = np.concatenate([one.converged for one in found])
            fitted.multiply(
                train,
                tf.concat([one.values for one in found], axis=0),
                values[:, columns],
                lambda done, total, number=number: progress(number * total + done, num_blocks * total),  # type: ignore[misc]
            )
        return self.labelled(values, train, test, of, residuals, converged)

    def labelled(
        self,
        values: np.ndarray,
        train: examples.Examples,
        test: examples.Examples,
        of: str,
        residuals: np.ndarray,
        converged: np.ndarray,
    ) -> score_matrix.ScoreMatrix:
        """Scores that were computed in parts, with all that `scores` says of them.

        Args:
            values: [num_train, num_test].
            train: the training examples.
            test: the test examples.
            of: "loss" or "measured".
            residuals: [num_test], of their solutions.
            converged: [num_test].

        Raises:
            InvalidArgumentError: `of` is unknown, or `fit` was not called.
            MismatchError: shapes do not belong together, or the weights have changed.
        """
        measured, fitted = gradient_products.measured_name(self.target, of), self.fitted()
        return score_matrix.ScoreMatrix(
            values,
            train.ids,
            test.ids,
            method=f"influence functions ({self.settings.name})",
            quantity=f"having the training example raises the {measured} of the test example",
            unit=measured,
            lower_is_better=measured == "loss",
            config={
                **solvers.as_config(self.settings),
                "of": of,
                "measured": self.target.measured_name,
                "loss": self.target.loss.name,
                "num_train": fitted.num_train,
                "weights": fitted.weights,
            },
            residuals=residuals,
            converged=converged,
        )

    def solutions(self, test: Any, of: str = "loss") -> Iterator[solutions.Solution]:
        """(C + damping I)^-1 grad m_t for test examples ("s_test"), in blocks of `blocks.solve`.

        Args:
            test: test examples.
            of: "loss" or "measured".

        Yields:
            The solutions of one block after the other, rows [R, P].

        Raises:
            See `scores`.
        """
        yield from self.fitted().solutions(examples.of(test), of)

    def set_scores(self, train: Any, test: Any, of: str = "loss") -> np.ndarray:
        """[num_train], the scores for the mean over a set of test examples, from one solution.

        Args:
            train: training examples to score.
            test: the set.
            of: "loss" or "measured".

        Returns:
            The means of the rows of `scores`: positive raises the mean of what is measured.

        Raises:
            See `scores`.
        """
        train, test = examples.of(train), examples.of(test)
        fitted = self.fitted()
        per_example.check_of(of)
        gradient_products.check_examples(self.target, test, of)
        total = tf.zeros([1, self.target.num_parameters], self.target.dtype)
        for batch, count in gradient_products.even_batches(test, self.blocks.train):
            rows = fitted.gradients[of](batch.inputs, batch.labels)[:count]
            gradient_products.check_finite(rows, batch.ids)
            total += tf.reduce_sum(rows, axis=0, keepdims=True)
        values = np.empty((len(train), 1), self.target.dtype.as_numpy_dtype)
        found = fitted.solver.solve(total / len(test)).values
        fitted.multiply(train, found, values)
        return values[:, 0]

    def self_scores(self, train: Any) -> np.ndarray:
        """[num_train], R(i, i) = +(1/n) g_i^T (C + damping I)^-1 g_i.

        The predicted rise of an example's own loss when it is left out: what memorization is to first order. It is not
        negative where C + damping I is positive.

        Args:
            train: training examples, all of those that were fitted or some; n is that of `fit`.

        Returns:
            The scores, in units of the loss. Solvers that are direct (see `solvers`) take one pass over the examples;
            others solve one system for each example.

        Raises:
            See `scores`.
        """
        train, fitted = examples.of(train), self.fitted()
        gradient_products.check_examples(self.target, train, "loss")
        forms = fitted.quadratic_forms()
        found = []
        for batch, count in gradient_products.even_batches(train, min(self.blocks.train, self.blocks.solve)):
            values = forms(batch.inputs, batch.labels)[:count]
            gradient_products.check_finite(values[:, None], batch.ids)
            found.append(values.numpy() / fitted.num_train)
        return np.concatenate(found)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Stores what `fit` prepared, with its settings and the fingerprints of weights and training examples.

        Args:
            folder: a new folder.
            overwrite: replace it if it is there.

        Raises:
            InvalidArgumentError: the folder is there, or `fit` was not called.
        """
        fitted = self.fitted()
        artifacts.save_prepared(
            folder,
            fitted.prepared,
            artifacts.origin(self.target, fitted.problem.train, self.settings.prepared_by),
            solvers.as_config(self.settings),
            overwrite=overwrite,
        )

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        target: targets.Target,
        train: Any,
        solver: str | solving.Settings | None = None,
        *,
        batch_size: int = 256,
        memory_limit_mb: float = 2048.0,
        **options: Any,
    ) -> "InfluenceFunctions":
        """What `save` stored, of the same weights and training examples.

        Args:
            folder: of `save`.
            target: as it was fitted.
            train: as they were fitted.
            solver: other settings, for which what is stored must serve: another damping, or K-FAC for EK-FAC; None for
                those that are stored.
            batch_size: see the class.
            memory_limit_mb: see the class.
            **options: of the solver.

        Returns:
            As after `fit`.

        Raises:
            MismatchError: what is stored is of other weights, examples or settings.
            DamagedArtifactError: a file is not what was written.
        """
        if solver is None:
            stored = artifacts.read_config(folder)
            solver = solvers.find(stored.pop("solver"), stored | options)
            options = {}
        found = cls(target, solver, batch_size=batch_size, memory_limit_mb=memory_limit_mb, **options)
        return found.restore(folder, train)

    def restore(self, folder: str | os.PathLike[str], train: Any) -> "InfluenceFunctions":
        """Takes what `save` stored in the place of `fit`.

        Args:
            folder: of `save`.
            train: the training examples, as they were fitted.

        Returns:
            Itself.

        Raises:
            See `load`.
        """
        problem = self._make_problem(train)
        wanted = artifacts.origin(self.target, problem.train, self.settings.prepared_by)
        self._set(problem, artifacts.load_prepared(folder, wanted))
        return self


def influence_on(
    target: targets.Target,
    train: Any,
    test_example: tuple[Any, Any],
    solver: str | solving.Settings = "ekfac",
    **options: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects of removal on the loss of one test example, and their rankings.

        influences, harmful, helpful = influence_functions.influence_on(target, train, (x_test, y_test))

    Args:
        target: what is differentiated.
        train: the training examples.
        test_example: (inputs, label) of one example, without an axis for examples.
        solver: see `InfluenceFunctions`.
        **options: see `InfluenceFunctions`.

    Returns:
        (influences, harmful, helpful): R [num_train], the rise of the test loss when the example is left out, so that
        positive helps; positions of all training examples, the most harmful first; the same, the most helpful first.

    Raises:
        See `InfluenceFunctions`.
    """
    inputs, labels = tf.nest.map_structure(lambda array: np.asarray(array)[None], tuple(test_example))
    fitted = InfluenceFunctions(target, solver, **options).fit(train)
    matrix = fitted.scores(train, (inputs, labels))
    return matrix.helpfulness(0), matrix.harmful(0), matrix.helpful(0)
