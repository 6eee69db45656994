"""Softmax regression whose influence functions are known in closed form, in float64."""

import numpy as np
import tensorflow as tf

from estimators import targets

NUM_CLASSES, NUM_FEATURES, WEIGHT_DECAY = 3, 4, 0.1


class Softmax(tf.Module):
    """Logits x W."""

    def __init__(self, weights):
        super().__init__()
        self.weights = tf.Variable(weights, name="weights")

    def __call__(self, inputs):
        return inputs @ self.weights


def data(num, seed):
    """Inputs and labels, classes in turn."""
    inputs = np.random.default_rng(seed).normal(size=(num, NUM_FEATURES))
    return inputs, np.arange(num) % NUM_CLASSES


def model():
    """Some weights."""
    return Softmax(np.random.default_rng(0).normal(size=(NUM_FEATURES, NUM_CLASSES)))


def target(measured="loss"):
    """Its target, with weight decay."""
    return targets.of(model(), measured=measured, weight_decay=WEIGHT_DECAY)


def gradients(weights, inputs, labels):
    """[N, P], of the loss."""
    logits = inputs @ weights
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return np.einsum("ni,nk->nik", inputs, p - np.eye(NUM_CLASSES)[labels]).reshape(len(inputs), -1)


def influence(train, test, damping):
    """R [num_test, num_train], written out."""
    weights = model().weights.numpy()
    inputs, _ = train
    logits = inputs @ weights
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    blocks = np.einsum("nk,kl->nkl", p, np.eye(NUM_CLASSES)) - np.einsum("nk,nl->nkl", p, p)
    size = NUM_FEATURES * NUM_CLASSES
    hessian = np.einsum("ni,nj,nkl->ikjl", inputs, inputs, blocks).reshape(size, size) / len(inputs)
    hessian += (WEIGHT_DECAY + damping) * np.eye(size)
    return gradients(weights, *test) @ np.linalg.solve(hessian, gradients(weights, *train).T) / len(inputs)
