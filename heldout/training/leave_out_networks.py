"""The network of an experiment of leaving out, as it is before its first step.

Its variables have the values of a seed, those of a checkpoint of the same architecture, or those of a checkpoint in the
body and those of the seed in the head. The head is what changes its shape with the number of outputs; all else is the
body, and every variable of it must be in the checkpoint, under the same path and of the same shape.
"""

import sonnet as snt
import tensorflow as tf

from heldout import subsets
from heldout.models import registry as models
from heldout.training import learners, leave_out_config, leave_out_data
from zoo import checkpoints, errors


def build(
    config: leave_out_config.LeaveOutConfig,
    data: leave_out_data.LeaveOutData,
    dtype: str,
    num_outputs: int | None = None,
) -> tf.Module:
    """A network whose variables have the values of the seed.

    Args:
        config: of the experiment.
        data: its data.
        dtype: of the variables.
        num_outputs: instead of those of the data.

    Raises:
        InvalidValueError: the architecture cannot be built.
    """
    tf.random.set_seed(subsets.seed(("ground_truth_effects", 0.5, config.seed), "initialisation") % (1 << 31))
    return models.build(
        config.architecture,
        num_outputs or data.num_outputs,
        data.image_shape,
        config.architecture_options,
        dtype=tf.as_dtype(dtype),
    )


def initialised(config: leave_out_config.LeaveOutConfig, data: leave_out_data.LeaveOutData) -> tf.Module:
    """The network before its first step.

    Args:
        config: of the experiment.
        data: its data.

    Raises:
        InvalidValueError: the architecture cannot be built, or has batch normalisation and no averages to begin with.
        MissingFileError, DamagedFileError, MismatchError: as `zoo.checkpoints.restore`, of the checkpoint.
    """
    module = build(config, data, config.dtype)
    if config.init_checkpoint is not None and not config.init_body:
        checkpoints.restore(module, config.init_checkpoint)
        return module
    if config.dtype != "float32":
        # The same draws in every type, so that one can be held against the other.
        module = cast(build(config, data, "float32"), config, data, config.dtype)
    if config.init_checkpoint is not None:
        checkpoints.restore(module, config.init_checkpoint, without=head_keys(config, data))
    elif _lacks_averages(module):
        raise errors.InvalidValueError(
            f"--arch={config.architecture}: has batch normalisation, which needs averages of a trained network; give "
            "--init_checkpoint, weights where the architecture takes them, or an architecture without it, such as "
            "conv5 with the option batch_norm false"
        )
    return module


def cast(
    module: tf.Module, config: leave_out_config.LeaveOutConfig, data: leave_out_data.LeaveOutData, dtype: str
) -> tf.Module:
    """The same network with variables of another type.

    Args:
        module: of the experiment, with any values.
        config: of the experiment.
        data: its data.
        dtype: of the variables.
    """
    other, values = build(config, data, dtype), learners.read_values(module)
    for key, variable in checkpoints.model_variables(other).items():
        variable.assign(tf.cast(values[key], variable.dtype))
    return other


def head_keys(config: leave_out_config.LeaveOutConfig, data: leave_out_data.LeaveOutData) -> frozenset[str]:
    """Checkpoint keys of the variables whose shape follows the number of outputs."""
    one, other = (
        checkpoints.model_variables(build(config, data, config.dtype, data.num_outputs + more)) for more in (0, 1)
    )
    return frozenset(key for key in one if key not in other or one[key].shape != other[key].shape)


def _lacks_averages(module: tf.Module) -> bool:
    if getattr(module, "is_pretrained", False):
        return False
    return getattr(module, "has_batch_norm", False) or any(
        isinstance(part, snt.BatchNorm) for part in module.submodules
    )
