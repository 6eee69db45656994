"""Gradients of single examples by captum's sample-wise trick, which its TracIn uses.

Reads weights of an MLP (w0, b0, ...) and `train_*`, and settings `batch_size`, `repeats`. Writes `gradients` [B, P] of
the first batch, in the order of TensorFlow's weights, and seconds for that batch.
"""

import importlib.metadata

from captum._utils import gradient
import numpy as np
import torch
import torch_models


def main() -> None:
    """Differentiates as often as asked, once more at first."""
    arrays, settings, destination = torch_models.read()
    model = torch_models.mlp(arrays)
    inputs, labels = torch_models.examples(arrays, "train")[: settings["batch_size"]]
    loss = torch.nn.CrossEntropyLoss(reduction="sum")

    def differentiate() -> torch.Tensor:
        found = gradient._compute_jacobian_wrt_params_with_sample_wise_trick(model, (inputs,), labels, loss, "sum")
        return torch.cat([rows.reshape(len(labels), -1) for rows in found], dim=1)

    differentiate()
    found, wall, processor = torch_models.timed(differentiate, settings["repeats"])
    np.savez(
        destination,
        gradients=torch_models.vectors(model, found.detach()),
        gradients_wall=wall,
        gradients_processor=processor,
        version=importlib.metadata.version("captum"),
    )


if __name__ == "__main__":
    main()
