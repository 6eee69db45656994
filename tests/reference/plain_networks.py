"""The networks of every width, written out operation by operation in the order of their variables.

Each takes images [B, H, W, C] and the values of all variables, float64, without batch normalisation. Loops and sums,
nothing of ours.
"""

import math
from typing import Any

import numpy as np

Arrays = list[Any]


def convolve(images: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None, stride: int = 1) -> np.ndarray:
    """SAME padding as TensorFlow has it: as few zeros as will do, the odd one behind."""
    size = kernel.shape[0]
    places = [-(-extent // stride) for extent in images.shape[1:3]]
    missing = [max((n - 1) * stride + size - extent, 0) for n, extent in zip(places, images.shape[1:3], strict=True)]
    padded = np.pad(images, [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)])
    outputs = np.zeros([len(images), *places, kernel.shape[3]])
    for row in range(places[0]):
        for column in range(places[1]):
            top, left = row * stride, column * stride
            outputs[:, row, column] = np.tensordot(padded[:, top : top + size, left : left + size], kernel, 3)
    return outputs if bias is None else outputs + bias


def relu(values: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(values, 0)


def pool(images: np.ndarray, reduce: Any) -> np.ndarray:
    """Windows of 2 x 2; an odd row or column is left out."""
    height, width = (2 * (extent // 2) for extent in images.shape[1:3])
    parts = [images[:, top:height:2, left:width:2] for top in (0, 1) for left in (0, 1)]
    return reduce(np.stack(parts), axis=0)


def conv5(images: np.ndarray, values: Arrays, pooling: str) -> np.ndarray:
    """Kernel and bias of four convolutions, then of the last layer."""
    outputs = images
    reduce: Any = np.max if pooling == "max" else np.mean
    for number in range(4):
        outputs = relu(convolve(outputs, *values[2 * number : 2 * number + 2]))
        if number in ((1, 2, 3) if pooling == "max" else (1, 2)):
            outputs = pool(outputs, reduce)
    return reduce(outputs, axis=(1, 2)) @ values[8] + values[9]


def vgg(images: np.ndarray, values: Arrays, stages: tuple[int, ...]) -> np.ndarray:
    """Kernel and bias of all convolutions, then of the last layer."""
    values, outputs = list(values), images
    for stage, num_convolutions in enumerate(stages):
        for _ in range(num_convolutions):
            outputs = relu(convolve(outputs, values.pop(0), values.pop(0)))
        outputs = pool(outputs, np.max) if stage < 4 else outputs.max(axis=(1, 2))
    return outputs @ values[0] + values[1]


def resnet(images: np.ndarray, values: Arrays, stages: tuple[int, ...]) -> np.ndarray:
    """Kernel and bias of both convolutions of each block, then the kernel of its shortcut where there is one."""
    values = list(values)
    outputs = relu(convolve(images, values.pop(0), values.pop(0)))
    for stage, num_blocks in enumerate(stages):
        for block in range(num_blocks):
            stride = 2 if stage and not block else 1
            branch = relu(convolve(outputs, values.pop(0), values.pop(0), stride))
            branch = convolve(branch, values.pop(0), values.pop(0))
            shortcut = convolve(outputs, values.pop(0), None, stride) if stride == 2 else outputs
            outputs = relu(branch + shortcut)
    return outputs.mean(axis=(1, 2)) @ values[0] + values[1]


def normalise(tokens: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Layer norm over the last axis."""
    mean, variance = tokens.mean(axis=-1, keepdims=True), tokens.var(axis=-1, keepdims=True)
    return (tokens - mean) / np.sqrt(variance + 1e-5) * scale + offset


def gelu(values: np.ndarray) -> np.ndarray:
    """Each number x times the probability that a standard normal is below it."""
    return values * (1 + np.vectorize(math.erf)(values / math.sqrt(2))) / 2


def attention(tokens: np.ndarray, joint: np.ndarray, weights: np.ndarray, bias: np.ndarray, heads: int) -> np.ndarray:
    """One image, one head and one token at a time; tokens [T, d], joint [d, 3 d]."""
    num, width = tokens.shape
    queries, keys, values = np.split(tokens @ joint, 3, axis=1)
    taken = np.zeros([num, width])
    for part in np.split(np.arange(width), heads):
        for token in range(num):
            logits = keys[:, part] @ queries[token, part] / math.sqrt(len(part))
            share = np.exp(logits - logits.max())
            taken[token, part] = share / share.sum() @ values[:, part]
    return taken @ weights + bias


def vit(images: np.ndarray, values: dict[str, np.ndarray], depth: int, heads: int, patch: int) -> np.ndarray:
    """Values by checkpoint key without the root."""
    by_row = [image[r : r + patch, c : c + patch] for image in images for r, c in _corners(image, patch)]
    tokens = np.tensordot(np.stack(by_row), values["patches/w"], 3) + values["patches/b"]
    outputs = tokens.reshape(len(images), -1, tokens.shape[-1]) + values["positions"]
    for block in range(depth):
        own = {k.removeprefix(f"blocks/{block}/"): v for k, v in values.items() if k.startswith(f"blocks/{block}/")}
        normed = normalise(outputs, own["attention_norm/scale"], own["attention_norm/offset"])
        names = ("queries_keys_values/w", "outputs/w", "outputs/b")
        of_attention = [own[f"attention/{name}"] for name in names]
        outputs = outputs + np.stack([attention(one, *of_attention, heads) for one in normed])
        normed = normalise(outputs, own["mlp_norm/scale"], own["mlp_norm/offset"])
        hidden = gelu(normed @ own["mlp_hidden/w"] + own["mlp_hidden/b"])
        outputs = outputs + hidden @ own["mlp_outputs/w"] + own["mlp_outputs/b"]
    pooled = normalise(outputs, values["norm/scale"], values["norm/offset"]).mean(axis=1)
    return pooled @ values["prediction/w"] + values["prediction/b"]


def _corners(image: np.ndarray, patch: int) -> list[tuple[int, int]]:
    return [(r, c) for r in range(0, image.shape[0], patch) for c in range(0, image.shape[1], patch)]
