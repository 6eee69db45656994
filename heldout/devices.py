"""Choice of the device, before TensorFlow has touched any: `configure` for one of a kind, `strategy` for all.

    strategy = devices.strategy("gpu")
    with strategy.scope():
        model = registry.build(architecture, num_classes, image_shape)

Work on one model is split between all devices, independent runs take one each.
"""

import contextlib
import typing

from zoo import errors

if typing.TYPE_CHECKING:  # takes seconds, and programs that score on the CPU do without
    import tensorflow as tf

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
    import tensorflow as tf  # see above

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


def strategy(device: str, num_logical: int = 1, num_threads: int | None = None) -> "tf.distribute.Strategy":
    """Prepares TensorFlow for all devices of a kind; to be called once, first thing in a process.

    Models are made, and checkpoints restored into them, under `strategy.scope()`; what is computed of them is called
    outside of it.

    Args:
        device: "cpu", "gpu" or "tpu".
        num_logical: logical devices to make of the CPU: they share its cores, and show that work is split well.
        num_threads: see `configure`.

    Returns:
        The default strategy, which does nothing, where there is one CPU or GPU; `MirroredStrategy` over several;
        `TPUStrategy` over the cores of a TPU.

    Raises:
        InvalidValueError: TensorFlow sees no such device, or logical ones were asked for that are not of the CPU.
    """
    if num_logical != 1 and (device != "cpu" or num_logical < 1):
        raise errors.InvalidValueError(
            f"--device={device} with {num_logical} logical devices: only a CPU is divided, into 1 or more; all GPUs "
            "and all cores of a TPU are used"
        )
    configure(device, num_threads, num_logical)
    return over_all(device)


def over_all(device: str) -> "tf.distribute.Strategy":
    """The strategy over all devices of a kind that `configure` has prepared; see `strategy`."""
    import tensorflow as tf  # as above

    if device == "tpu":
        return tf.distribute.TPUStrategy(tf.distribute.cluster_resolver.TPUClusterResolver())
    names = [one.name for one in tf.config.list_logical_devices(device.upper())]
    return tf.distribute.MirroredStrategy(names) if len(names) > 1 else tf.distribute.get_strategy()


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
