"""Random signs that are computed from where they stand, never stored and never drawn in order.

A counter-based generator (Philox; Salmon et al., 2011) is a bijection of 128-bit counters for each 64-bit key. Here the
key is a seed with the number of an ensemble's member, and the counter is (stream, block, place): two signs share their
bits only if all of these are the same, and any block can be made again at any time, on any device.
"""

import numpy as np
import tensorflow as tf

from estimators import errors

_PHILOX = 1
_LIMIT = 2**32
# The bits of every byte, the lowest first.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")


def key(seed: int, member: int = 0) -> tf.Tensor:
    """[1] uint64: the key of a member of an ensemble; other members and other seeds have other keys.

    Raises:
        InvalidArgumentError: the seed or the member is not from 0 to 2^32 - 1.
    """
    return tf.constant([packed(seed, member)], tf.uint64)


def packed(seed: int, member: int) -> int:
    """The key as a number. Raises: see `key`."""
    for name, value in (("seed", seed), ("member", member)):
        if not 0 <= value < _LIMIT:
            raise errors.InvalidArgumentError(f"{name} {value}: must be from 0 to {_LIMIT - 1}")
    return (int(member) << 32) | int(seed)


def words(key: tf.Tensor, stream: int, block: int | tf.Tensor, num: int) -> tf.Tensor:
    """[num] uint32: the first words of a block.

    Args:
        key: from `key`.
        stream: which of the purposes that bits are used for, from 0 to 2^31 - 1, such as a layer.
        block: number of the block in the stream, int64 from 0 to 2^32 - 1.
        num: how many words.
    """
    high = tf.bitcast(tf.constant(stream << 32, tf.int64) + tf.cast(block, tf.int64), tf.uint64)
    counter = tf.stack([tf.constant(0, tf.uint64), high])
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[num], key=key, counter=counter, alg=_PHILOX, dtype=tf.uint32
    )


def signs(
    key: tf.Tensor, stream: int, block: int | tf.Tensor, shape: tuple[int, ...], dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """A tensor of -1 and 1, one bit each. Args: see `words`."""
    num = int(np.prod(shape))
    drawn = tf.cast(tf.bitcast(words(key, stream, block, -(-num // 32)), tf.uint8), tf.int32)
    # Rows of a table take a quarter of the time that shifting and masking 32-bit numbers do.
    spread = tf.gather(tf.constant(1.0 - 2.0 * _BITS, dtype), tf.reshape(drawn, [-1]))
    return tf.reshape(tf.reshape(spread, [-1])[:num], shape)
