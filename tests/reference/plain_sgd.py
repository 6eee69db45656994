"""Momentum SGD on a multilayer perceptron, gradients written out by hand, float64: truth for the training loop."""

import numpy as np


def loss_and_gradients(parameters, inputs, labels):
    """Mean cross-entropy and its gradient for each (weights, bias) pair; ReLU between the layers."""
    activations = [inputs]
    for number, (weights, bias) in enumerate(parameters):
        outputs = activations[-1] @ weights + bias
        activations.append(np.maximum(outputs, 0) if number < len(parameters) - 1 else outputs)
    shifted = activations[-1] - activations[-1].max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    delta = np.exp(log_probability)
    delta[rows, labels] -= 1
    delta /= len(labels)
    gradients = []
    for number in reversed(range(len(parameters))):
        gradients.append((activations[number].T @ delta, delta.sum(axis=0)))
        delta = (delta @ parameters[number][0].T) * (activations[number] > 0)
    return -log_probability[rows, labels].mean(), gradients[::-1]


def train(parameters, batches, rates, momentum, nesterov, weight_decay):
    """Parameters after one step per batch (inputs, labels) with one rate each; decay acts on weights, not biases."""
    velocities = [(np.zeros_like(weights), np.zeros_like(bias)) for weights, bias in parameters]
    for (inputs, labels), rate in zip(batches, rates, strict=True):
        _, gradients = loss_and_gradients(parameters, inputs, labels)
        gradients = [(gw + weight_decay * w, gb) for (gw, gb), (w, _) in zip(gradients, parameters, strict=True)]
        pairs = list(zip(velocities, gradients, strict=True))
        velocities = [tuple(momentum * v + g for v, g in zip(vs, gs, strict=True)) for vs, gs in pairs]
        directions = velocities
        if nesterov:
            pairs = list(zip(gradients, velocities, strict=True))
            directions = [tuple(g + momentum * v for g, v in zip(gs, vs, strict=True)) for gs, vs in pairs]
        parameters = [(w - rate * dw, b - rate * db) for (w, b), (dw, db) in zip(parameters, directions, strict=True)]
    return parameters


def train_with_adam(parameters, batches, rates, betas, epsilon, l1):
    """The same with Adam and an absolute penalty on weights; epsilon is added to the root of the uncorrected moment."""
    first = [(np.zeros_like(weights), np.zeros_like(bias)) for weights, bias in parameters]
    second = [(np.zeros_like(weights), np.zeros_like(bias)) for weights, bias in parameters]
    for step, ((inputs, labels), rate) in enumerate(zip(batches, rates, strict=True), start=1):
        _, gradients = loss_and_gradients(parameters, inputs, labels)
        gradients = [(gw + l1 * np.sign(w), gb) for (gw, gb), (w, _) in zip(gradients, parameters, strict=True)]
        first = _moved(first, gradients, betas[0], 1)
        second = _moved(second, gradients, betas[1], 2)
        rate = rate * np.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)
        parameters = [
            tuple(p - rate * m / (np.sqrt(v) + epsilon) for p, m, v in zip(ps, ms, vs, strict=True))
            for ps, ms, vs in zip(parameters, first, second, strict=True)
        ]
    return parameters


def _moved(moments, gradients, beta, power):
    return [
        tuple(beta * m + (1 - beta) * g**power for m, g in zip(ms, gs, strict=True))
        for ms, gs in zip(moments, gradients, strict=True)
    ]
