"""(H + damping)^-1 v by pyDVL's conjugate gradients, H the Hessian of the mean cross-entropy over the examples.

Reads weights, `train_*`, `vectors` [R, P] (order of TensorFlow's weights) and settings `damping`, `tolerance`,
`batch_size`, `together` (its block variant), `repeats`. Writes `solutions` [R, P] and seconds.

pyDVL compares |residual| with max(rtol^2 |v|, atol^2), where its plain variant takes the elements of v for |v|: both
variants are given atol and rtol by which they stop at `tolerance` |v|.
"""

import importlib.metadata

import numpy as np
from pydvl.influence.torch import operator
import torch
import torch_models


def main() -> None:
    """Solves as often as asked."""
    arrays, settings, destination = torch_models.read()
    model = torch_models.mlp(arrays)
    loader = torch.utils.data.DataLoader(torch_models.examples(arrays, "train"), batch_size=settings["batch_size"])
    hessian = operator.HessianOperator(model, torch.nn.functional.cross_entropy, loader)
    right = _in_order(model, torch.from_numpy(arrays["vectors"]))
    root = settings["tolerance"] ** 0.5

    def solver(rtol: float, atol: float, together: bool) -> operator.CgOperator:
        return operator.CgOperator(
            hessian,
            settings["damping"],
            rtol=rtol,
            atol=atol,
            maxiter=settings["max_iterations"],
            use_block_cg=together,
        )

    def solve() -> torch.Tensor:
        if settings["together"]:
            return solver(root, 1e-12, True).apply(right)
        rows = [solver(0.0, root * float(torch.norm(v)) ** 0.5, False).apply(v[None]) for v in right]
        return torch.cat([row.reshape(1, -1) for row in rows])

    found, wall, processor = torch_models.timed(solve, settings["repeats"])
    np.savez(
        destination,
        solutions=torch_models.vectors(model, found.detach().reshape(right.shape)),
        solve_wall=wall,
        solve_processor=processor,
        version=importlib.metadata.version("pydvl"),
    )


def _in_order(model: torch.nn.Sequential, flat: torch.Tensor) -> torch.Tensor:
    """The inverse of `torch_models.vectors`."""
    parts = torch.split(flat, [p.numel() for p in model.parameters()], dim=1)
    found = []
    for part, parameter in zip(parts, model.parameters(), strict=True):
        if parameter.ndim == 2:
            part = part.reshape(-1, *reversed(parameter.shape)).transpose(1, 2).reshape(len(flat), -1)
        found.append(part)
    return torch.cat(found, dim=1)


if __name__ == "__main__":
    main()
