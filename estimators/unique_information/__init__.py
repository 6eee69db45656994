"""How much a trained network would change without an example, or a group: smooth unique information, in nats.

    removed = leave_out.solve(kernel, outputs - labels, descent, time=2000)
    weights.isotropic(removed, sigma=1e-2).nats
    predictions.functional(removed, cross, sigma=1.0).nats
    predictions.self_effects(removed)                         # signed: what leaving out does to one's own prediction

Source: Harutyunyan et al., Estimating informativeness of samples with smooth unique information (ICLR 2021,
arXiv:2101.06640). A change is without minus with: dw = w_{-i} - w. Every score stands beside the squared norm that it
is made of, which needs no choice of a noise.

From the bottom upwards; each line uses those above it.

    results         scores with their names, constants and groups
    weights         in the weights, by isotropic noise or at the stationary state of Langevin dynamics
    sgd_noise       in the weights, by the noise of stochastic gradient descent
    predictions     in predictions; stability of training predictions and losses; signed effects
    interactions    what pairs have in common
    accumulation    how far training moved along the gradients of each example
"""
