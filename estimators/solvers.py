"""Solvers of (C + damping I) x = v by name, each with its settings; C is the curvature of a target's training loss.

    explicit            C written out: exact, for small models; with its pseudo-inverse
    conjugate_gradient  to a tolerance, plain or preconditioned by Nystroem or EK-FAC
    lissa               by random batches
    lanczos, arnoldi    on the largest eigenvalues
    nystroem            of low rank
    kfac, ekfac         layer by layer
    ekfac_neumann       EK-FAC made exact by iteration
    identity            C + damping I replaced by I: inner products of gradients

All but conjugate gradients, LiSSA and the Neumann series are *direct*: once prepared, the inverse takes no pass over
the training examples, so that quadratic forms of single examples are cheap. What was prepared (Kronecker factors,
eigenpairs) can be stored and used again with another damping.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from estimators import errors, solving
from estimators.curvature import (
    conjugate_gradient,
    explicit,
    kronecker,
    krylov,
    lissa,
    neumann,
    nystroem,
    solutions,
)


@dataclasses.dataclass(frozen=True)
class Identity(solving.Unprepared):
    """No curvature at all: scores are inner products of gradients over n. Neither damping nor weight decay counts."""

    name = "identity"

    def make(self, problem: solving.Problem, prepared: solving.Prepared) -> solutions.Solver:
        """See `solving.Settings`."""
        del problem, prepared
        return solving.DirectSolver(solving.NoCurvature(), check=False)


@dataclasses.dataclass(frozen=True)
class Explicit(solving.Unprepared):
    """See `explicit.ExplicitSolver`; P passes, 16 P^2 bytes.

    Attributes:
        damping: added to every eigenvalue.
        curvature: one of `operators.KINDS`.
        pseudo_inverse: leave out directions whose damped eigenvalue is zero.
    """

    damping: float = 0.0
    curvature: str = "hessian"
    pseudo_inverse: bool = False
    name = "explicit"

    def make(self, problem: solving.Problem, prepared: solving.Prepared) -> solutions.Solver:
        """See `solving.Settings`."""
        del prepared
        operator = problem.operator(self.curvature)
        found = explicit.ExplicitSolver(operator, self.damping, pseudo_inverse=self.pseudo_inverse)
        return solving.DirectSolver(found, check=True)


@dataclasses.dataclass(frozen=True)
class Lanczos:
    """See `krylov.LanczosSolver`; `num_steps` passes.

    Attributes:
        damping: added to every eigenvalue.
        curvature: one of `operators.KINDS`.
        num_eigenvalues, num_steps, seed, complement: as there.
        check: compute residuals, one pass for each test example.
    """

    damping: float = 1e-3
    curvature: str = "hessian"
    num_eigenvalues: int = 50
    num_steps: int = 200
    seed: int = 0
    complement: bool = False
    check: bool = True
    name = "lanczos"

    @property
    def prepared_by(self) -> Mapping[str, Any]:
        """See `solving.Settings`."""
        return {k: getattr(self, k) for k in ("name", "curvature", "num_eigenvalues", "num_steps", "seed")}

    def prepare(self, problem: solving.Problem) -> solving.Prepared:
        """See `solving.Settings`: `eigenvalues` [K], `eigenvectors` [K, P], `eigen_residuals` [K]."""
        operator = problem.operator(self.curvature)
        found = krylov.LanczosSolver(
            operator,
            self.damping,
            num_eigenvalues=min(self.num_eigenvalues, operator.size),
            num_steps=self.num_steps,
            seed=self.seed,
        )
        return {
            "eigenvalues": found.eigenvalues,
            "eigenvectors": found.eigenvectors.numpy(),
            "eigen_residuals": found.eigen_residuals,
        }

    def make(self, problem: solving.Problem, prepared: solving.Prepared) -> solutions.Solver:
        """See `solving.Settings`."""
        arrays = solving.arrays(prepared)
        inner = krylov.LanczosSolver.of_eigenpairs(
            problem.operator(self.curvature),
            self.damping,
            arrays["eigenvalues"],
            arrays["eigenvectors"],
            arrays["eigen_residuals"],
            complement=self.complement,
        )
        return solving.DirectSolver(inner, check=self.check)


@dataclasses.dataclass(frozen=True)
class Nystroem:
    """See `nystroem.NystroemSolver`; `rank` passes.

    Attributes:
        damping: added to every eigenvalue, above 0.
        curvature: one of `operators.KINDS`; the Hessian only where it is positive.
        rank: at most the number of parameters counts.
        seed: of the random vectors.
        check: compute residuals, one pass for each test example.
    """

    damping: float = 1e-3
    curvature: str = "gauss_newton"
    rank: int = 100
    seed: int = 0
    check: bool = True
    name = "nystroem"

    @property
    def prepared_by(self) -> Mapping[str, Any]:
        """See `solving.Settings`."""
        return {k: getattr(self, k) for k in ("name", "curvature", "rank", "seed")}

    def prepare(self, problem: solving.Problem) -> solving.Prepared:
        """See `solving.Settings`: `eigenvalues` [K], `eigenvectors` [K, P]."""
        operator = problem.operator(self.curvature)
        found = nystroem.NystroemSolver(operator, self.damping, rank=min(self.rank, operator.size), seed=self.seed)
        return {"eigenvalues": found.eigenvalues, "eigenvectors": found.eigenvectors.numpy()}

    def make(self, problem: solving.Problem, prepared: solving.Prepared) -> solutions.Solver:
        """See `solving.Settings`."""
        arrays, operator = solving.arrays(prepared), problem.operator(self.curvature)
        inner = nystroem.NystroemSolver.of_eigenpairs(
            operator, self.damping, arrays["eigenvalues"], arrays["eigenvectors"]
        )
        return solving.DirectSolver(inner, check=self.check)


@dataclasses.dataclass(frozen=True)
class Ekfac:
    """See `kronecker.KroneckerSolver`; two passes.

    Attributes:
        damping: added to every eigenvalue.
        labels: over which labels factors are expectations, one of `kronecker.LABELS`.
        seed: of drawn labels.
        check: compute residuals against the Gauss-Newton matrix, one pass for each test example.
    """

    damping: float = 1e-3
    labels: str = "sampled"
    seed: int = 0
    check: bool = False
    name = "ekfac"
    _corrected = True

    @property
    def prepared_by(self) -> Mapping[str, Any]:
        """See `solving.Settings`."""
        return {"name": "kronecker", "labels": self.labels, "seed": self.seed}

    def prepare(self, problem: solving.Problem) -> solving.Prepared:
        """See `solving.Settings`: the factors."""
        return kronecker.fit(
            problem.plan, problem.train, labels=self.labels, batch_size=problem.batch_size, seed=self.seed
        )

    def make(self, problem: solving.Problem, prepared: solving.Prepared) -> solutions.Solver:
        """See `solving.Settings`."""
        inner = kronecker.KroneckerSolver(
            problem.plan,
            solving.factors(prepared),
            self.damping,
            eigenvalue_correction=self._corrected,
            operator=problem.operator("gauss_newton") if self.check else None,
        )
        return solving.DirectSolver(inner, check=self.check)


@dataclasses.dataclass(frozen=True)
class Kfac(Ekfac):
    """The same without the correction of eigenvalues."""

    name = "kfac"
    _corrected = False


@dataclasses.dataclass(frozen=True)
class EkfacNeumann:
    """See `neumann.NeumannSolver`, begun with EK-FAC.

    Attributes:
        damping: added to every eigenvalue.
        curvature: one of `operators.KINDS`.
        labels, seed: of the factors, as for `Ekfac`.
        tolerance, max_iterations: as there.
    """

    damping: float = 1e-3
    curvature: str = "gauss_newton"
    labels: str = "sampled"
    seed: int = 0
    tolerance: float = 1e-3
    max_iterations: int = 100
    name = "ekfac_neumann"

    @property
    def prepared_by(self) -> Mapping[str, Any]:
        """See `solving.Settings`."""
        return {"name": "kronecker", "labels": self.labels, "seed": self.seed}

    def prepare(self, problem: solving.Problem) -> solving.Prepared:
        """See `solving.Settings`: the factors."""
        return Ekfac(labels=self.labels, seed=self.seed).prepare(problem)

    def make(self, problem: solving.Problem, prepared: solving.Prepared) -> solutions.Solver:
        """See `solving.Settings`."""
        return neumann.NeumannSolver(
            problem.operator(self.curvature),
            kronecker.KroneckerSolver(problem.plan, solving.factors(prepared), self.damping),
            self.damping,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            seed=self.seed,
        )


@dataclasses.dataclass(frozen=True)
class ConjugateGradient:
    """See `conjugate_gradient.ConjugateGradientSolver`.

    Attributes:
        damping: added to every eigenvalue.
        curvature: one of `operators.KINDS`; the Hessian only where it is positive with the damping.
        tolerance, max_iterations, block: as there.
        preconditioner: "none", "nystroem" or "ekfac", with its own defaults and this damping.
        rank: of the Nystroem preconditioner.
        seed: of the preconditioner.
    """

    damping: float = 1e-3
    curvature: str = "gauss_newton"
    tolerance: float = 1e-5
    max_iterations: int = 1000
    block: int = 64
    preconditioner: str = "none"
    rank: int = 100
    seed: int = 0
    name = "conjugate_gradient"

    def __post_init__(self) -> None:
        if self.preconditioner not in ("none", "nystroem", "ekfac"):
            raise errors.InvalidArgumentError(
                f"preconditioner {self.preconditioner!r}: expected none, nystroem or ekfac"
            )

    @property
    def prepared_by(self) -> Mapping[str, Any]:
        """See `solving.Settings`."""
        settings = self._preconditioner()
        return {} if settings is None else settings.prepared_by

    def prepare(self, problem: solving.Problem) -> solving.Prepared:
        """See `solving.Settings`: what the preconditioner needs."""
        settings = self._preconditioner()
        return None if settings is None else settings.prepare(problem)

    def make(self, problem: solving.Problem, prepared: solving.Prepared) -> solutions.Solver:
        """See `solving.Settings`."""
        settings = self._preconditioner()
        inner = None if settings is None else settings.make(problem, prepared)
        return conjugate_gradient.ConjugateGradientSolver(
            problem.operator(self.curvature),
            self.damping,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            block=self.block,
            preconditioner=inner.inner if isinstance(inner, solving.DirectSolver) else None,
        )

    def _preconditioner(self) -> Nystroem | Ekfac | None:
        if self.preconditioner == "nystroem":
            return Nystroem(self.damping, self.curvature, self.rank, self.seed)
        return Ekfac(self.damping, seed=self.seed) if self.preconditioner == "ekfac" else None


@dataclasses.dataclass(frozen=True)
class Lissa(lissa.LissaConfig, solving.Unprepared):
    """See `lissa.LissaConfig`, whose settings these are; the damping is called `damp`.

    Attributes:
        curvature: one of `operators.KINDS`.
    """

    curvature: str = "hessian"
    name = "lissa"

    def make(self, problem: solving.Problem, prepared: solving.Prepared) -> solutions.Solver:
        """See `solving.Settings`."""
        del prepared
        return lissa.LissaSolver(problem.operator(self.curvature), self)


SOLVERS: dict[str, Callable[..., solving.Settings]] = {
    "explicit": Explicit,
    "conjugate_gradient": ConjugateGradient,
    "lissa": Lissa,
    "lanczos": Lanczos,
    "arnoldi": Lanczos,
    "nystroem": Nystroem,
    "kfac": Kfac,
    "ekfac": Ekfac,
    "ekfac_neumann": EkfacNeumann,
    "identity": Identity,
}


def find(solver: str | solving.Settings, options: Mapping[str, Any]) -> solving.Settings:
    """Settings by the name of the solver and options that differ from its defaults, or as they are.

    Raises:
        InvalidArgumentError: the name or an option is not known, or options stand beside settings.
    """
    if not isinstance(solver, str):
        if options:
            raise errors.InvalidArgumentError(
                f"options {sorted(options)} beside settings of {solver.name}; put them into the settings"
            )
        return solver
    if solver not in SOLVERS:
        raise errors.InvalidArgumentError(f"solver {solver!r}: expected one of {', '.join(SOLVERS)}")
    known = [field.name for field in dataclasses.fields(SOLVERS[solver])]  # type: ignore[arg-type]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise errors.InvalidArgumentError(
            f"options {unknown} of solver {solver}: expected some of {', '.join(known) or 'none'}"
        )
    return SOLVERS[solver](**options)


def as_config(settings: solving.Settings) -> dict[str, Any]:
    """Name and settings, as JSON could hold them."""
    return {"solver": settings.name, **dataclasses.asdict(settings)}  # type: ignore[call-overload]
