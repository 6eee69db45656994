"""What weights are known by: digests, and how many steps are behind them."""

import hashlib
import pathlib

import numpy as np
import tensorflow as tf

from scripts.attribution import model_sources
from zoo import checkpoint_bundle, files


def step(prefix: pathlib.Path) -> int | None:
    """How many steps a checkpoint has behind it; None where it does not say, or cannot be read."""
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        return int(reader.get_tensor("global_step" + checkpoint_bundle.VALUE_SUFFIX))
    except (tf.errors.OpError, ValueError, RuntimeError):  # restoring it says what is wrong
        return None


def digest(prefix: pathlib.Path) -> str:
    """Of the index file, which has checksums of all weights."""
    return files.sha256_of_file(f"{prefix}.index")


def digest_of_own(found: model_sources.Loaded) -> str:
    """Of all variables that predictions depend on: those that are trained, and others such as moving averages."""
    first = tf.nest.map_structure(tf.convert_to_tensor, found.test.take(slice(0, 1)).inputs)
    trained = found.target.variables
    known = {id(variable) for variable in trained}
    # Tracing tells which variables are read, in no order that would be the same the next time.
    read = tf.function(found.target.predict).get_concrete_function(first).variables
    digests = [_digest_of_variable(variable) for variable in trained]
    digests += sorted(_digest_of_variable(variable) for variable in read if id(variable) not in known)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _digest_of_variable(variable: tf.Variable) -> str:
    array = np.ascontiguousarray(variable.numpy())
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
