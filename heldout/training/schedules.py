"""Learning-rate schedules, as plain numbers per step.

warm-up    linear over the first `warmup_epochs`: step t of W, t from 1, runs at initial + (rate - initial) t / W, with
           rate that of the schedule and initial = `warmup_initial`
constant   the base rate
cosine     base / 2 * (1 + cos(pi * t / T)), t steps after the warm-up of T in all (Loshchilov & Hutter 2017)
step       base * step_factor^k, where k of the `step_epochs` have begun
"""

import numpy as np

from heldout.experiments import training_config


def learning_rates(config: training_config.TrainingConfig, steps_per_epoch: int, epoch: int) -> np.ndarray:
    """The rate of every step of epoch `epoch` (from 0), float64 [steps_per_epoch]."""
    num_steps = config.num_epochs * steps_per_epoch
    step = np.arange(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch)
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "cosine":
        progress = np.clip((step - warmup_steps) / max(1, num_steps - warmup_steps), 0, 1)
        factor = 0.5 * (1 + np.cos(np.pi * progress))
    elif config.schedule == "step":
        begun = np.sum(step[:, None] >= np.array(config.step_epochs)[None] * steps_per_epoch, axis=1)
        factor = config.step_factor**begun
    else:
        factor = np.ones(steps_per_epoch)
    rate = config.learning_rate * factor
    if not warmup_steps:
        return rate
    warmup = np.minimum(1, (step + 1) / warmup_steps)
    return rate * warmup + config.warmup_initial * (1 - warmup)
