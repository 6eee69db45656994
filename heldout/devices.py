"""Choice of the device, before TensorFlow has touched any."""

import contextlib

from zoo import errors

DEVICES = ("cpu", "gpu", "tpu")


def configure(
    device: str, num_threads: int | None = None, num_logical: int = 1
) -> contextlib.AbstractContextManager[None]:
    """Prepares TensorFlow for one kind of device; to be called once, first thing in a process.

    Args:
        device: "cpu", "gpu" or "tpu".
        num_threads: threads for the operations of this process; None leaves the choice to TensorFlow.
        num_logical: logical devices to make of the CPU, for a strategy with as many replicas.

    Returns:
        The scope in which to create variables and run.

    Raises:
        InvalidValueError: TensorFlow sees no such device.
    """
    import tensorflow as tf  # takes seconds, and programs that score on the CPU do without

    if num_threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        if num_logical > 1:
            (cpu,) = tf.config.list_physical_devices("CPU")
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_logical)
        return tf.device("/CPU:0")
    if device == "gpu":
        gpus = tf.config.list_physical_devices("GPU")
        if not gpus:
            raise errors.InvalidValueError(
                "--device=gpu: TensorFlow sees no GPU; install the CUDA libraries with `pip install '.[gpu]'`, "
                "check the driver with nvidia-smi, or use --device=cpu"
            )
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        return tf.device("/GPU:0")
    if device == "tpu":
        return _tpu()
    raise errors.InvalidValueError(f"--device={device}: expected one of {', '.join(DEVICES)}")


def _tpu() -> contextlib.AbstractContextManager[None]:
    import tensorflow as tf  # as above

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise errors.InvalidValueError(
            f"--device=tpu: no TPU could be reached ({str(error).splitlines()[0]}); install with "
            "`pip install '.[tpu]'` on a TPU machine, or use --device=cpu"
        ) from error
    del resolver
    return tf.device("/TPU:0")
