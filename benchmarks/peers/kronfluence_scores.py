"""Influence with EK-FAC by kronfluence (Grosse et al., 2023): g_t^T (Fisher + damping)^-1 g_i, not divided by n.

Reads weights, `train_*`, `test_*` and settings `damping`, `labels` ("sampled" or "data"), `batch_size`,
`query_batch_size`, `repeats`. Writes `scores` [num_train, num_test], and seconds of fitting and of scoring.
"""

import importlib.metadata
import tempfile
from typing import Any

from kronfluence import analyzer, arguments, task
import numpy as np
import torch
import torch_models


class Classification(task.Task):
    """Cross-entropy, summed over a batch."""

    def compute_train_loss(self, batch: Any, model: torch.nn.Module, sample: bool = False) -> torch.Tensor:
        """See the base class."""
        inputs, labels = batch
        logits = model(inputs)
        if sample:
            with torch.no_grad():
                labels = torch.multinomial(torch.softmax(logits.detach(), 1), 1).flatten()
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    def compute_measurement(self, batch: Any, model: torch.nn.Module) -> torch.Tensor:
        """See the base class: the loss."""
        return self.compute_train_loss(batch, model)


def main() -> None:
    """Fits and scores as often as asked, each time from the beginning."""
    arrays, settings, destination = torch_models.read()
    train, test = (torch_models.examples(arrays, name) for name in ("train", "test"))
    torch.manual_seed(0)
    computes = Classification()
    model = analyzer.prepare_model(torch_models.mlp(arrays), computes)
    with tempfile.TemporaryDirectory() as folder:
        found = analyzer.Analyzer("benchmark", model, computes, cpu=True, disable_tqdm=True, output_dir=folder)

        def fit() -> None:
            found.fit_all_factors(
                "factors",
                train,
                per_device_batch_size=settings["batch_size"],
                factor_args=arguments.FactorArguments("ekfac", use_empirical_fisher=settings["labels"] == "data"),
                overwrite_output_dir=True,
            )

        def score() -> torch.Tensor:
            found.compute_pairwise_scores(
                "scores",
                "factors",
                test,
                train,
                per_device_query_batch_size=settings["query_batch_size"],
                per_device_train_batch_size=settings["batch_size"],
                score_args=arguments.ScoreArguments(damping_factor=settings["damping"]),
                overwrite_output_dir=True,
            )
            return found.load_pairwise_scores("scores")["all_modules"]

        _, fit_wall, fit_processor = torch_models.timed(fit, settings["repeats"])
        scores, wall, processor = torch_models.timed(score, settings["repeats"])
    np.savez(
        destination,
        scores=np.ascontiguousarray(scores.numpy().T),
        fit_wall=fit_wall,
        fit_processor=fit_processor,
        score_wall=wall,
        score_processor=processor,
        version=importlib.metadata.version("kronfluence"),
    )


if __name__ == "__main__":
    main()
