"""The models of the benchmarks in PyTorch, from weights that TensorFlow stored.

Every script beside this one is run as PYTHON SCRIPT IN.npz OUT.npz: it reads weights, examples and settings (JSON),
and writes results and seconds. It imports nothing of ours, so that any Python with PyTorch runs it.
"""

from collections.abc import Callable
import json
import pathlib
import sys
import time
from typing import Any

import numpy as np
import torch


def read() -> tuple[dict[str, np.ndarray], dict[str, Any], pathlib.Path]:
    """(arrays, settings, where results go) from the two paths on the command line; sets the number of threads."""
    source, destination = sys.argv[1:3]
    with np.load(source) as stored:
        arrays = dict(stored)
    settings = json.loads(str(arrays.pop("settings")))
    torch.set_num_threads(settings["threads"])
    return arrays, settings, pathlib.Path(destination)


def timed(function: Callable[[], Any], repeats: int) -> tuple[Any, list[float], list[float]]:
    """(what it returned last, seconds that passed, seconds of all processors), of each repetition."""
    wall, processor, result = [], [], None
    for _ in range(repeats):
        started, begun = time.perf_counter(), time.process_time()
        result = function()
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - begun)
    return result, wall, processor


def mlp(arrays: dict[str, np.ndarray]) -> torch.nn.Sequential:
    """Dense layers with ReLU between them, of weights w0 [I, O], b0 [O], w1 and so on."""
    layers: list[torch.nn.Module] = []
    for k in range(sum(name[0] == "w" and name[1:].isdigit() for name in arrays)):
        kernel, bias = (torch.from_numpy(arrays[f"{kind}{k}"]) for kind in "wb")
        layer = torch.nn.Linear(*kernel.shape)
        layer.weight.data, layer.bias.data = kernel.T.contiguous(), bias.contiguous()
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def examples(arrays: dict[str, np.ndarray], name: str) -> torch.utils.data.TensorDataset:
    """The examples called "train" or "test"."""
    inputs, labels = (torch.from_numpy(arrays[f"{name}_{part}"]) for part in ("inputs", "labels"))
    return torch.utils.data.TensorDataset(inputs, labels.long())


def vectors(model: torch.nn.Sequential, flat: torch.Tensor) -> np.ndarray:
    """[R, P] in the order of TensorFlow's weights, kernels being [I, O], of vectors in PyTorch's."""
    parts = torch.split(flat, [p.numel() for p in model.parameters()], dim=1)
    found = []
    for part, parameter in zip(parts, model.parameters(), strict=True):
        shaped = part.reshape(-1, *parameter.shape)
        found.append((shaped.transpose(1, 2) if parameter.ndim == 2 else shaped).reshape(len(flat), -1))
    return torch.cat(found, dim=1).numpy()
