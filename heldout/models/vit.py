"""A small vision transformer (Dosovitskiy et al., 2021, arXiv:2010.11929) of embedding width d.

Images [B, H, W, C] -> a token of d numbers for every patch, by one linear map -> plus a learned embedding of its
position -> blocks in sequence -> layer norm -> mean over the tokens (Beyer et al., 2022, arXiv:2205.01580, instead of a
class token) -> linear logits [B, K]. A block is two residual branches, each behind a layer norm: attention with several
heads, and a linear layer of more width, GELU and a linear layer. With patches of p x p pixels, T = H W / p^2 tokens, L
blocks and hidden layers of r d there are

    (p^2 C + T + 3 + K) d + K + L ((4 + 2 r) d^2 + (6 + r) d)

parameters. Keys and queries have no bias, because a softmax does not see one of the keys, and values none, because it
would be added to that of the map behind them. No dropout: training and evaluation act alike.
"""

import math

import sonnet as snt
import tensorflow as tf

from heldout.models import initialisation as initialisations
from heldout.models import widths
from zoo import errors

_POSITION_STDDEV = 0.02


class Attention(snt.Module):
    """Each token takes from the others, by softmax(q k^T / sqrt(d / num_heads)): [B, T, d] -> [B, T, d].

    Args:
        width: d, a multiple of num_heads.
        num_heads: parts of d/num_heads numbers that attend apart.
        initial: how weights begin.
    """

    def __init__(
        self, width: int, num_heads: int, initial: initialisations.Initialisation, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self._width, self._num_heads = width, num_heads
        self.queries_keys_values = snt.Linear(3 * width, with_bias=False, w_init=initial.branch)
        self.outputs = snt.Linear(width, w_init=initial.branch_end)

    def __call__(self, tokens: tf.Tensor) -> tf.Tensor:
        """What the tokens take."""
        num_tokens, size = tokens.shape[1], self._width // self._num_heads
        projected = by_token(self.queries_keys_values, tokens)
        by_head = tf.transpose(tf.reshape(projected, [-1, num_tokens, 3, self._num_heads, size]), [2, 0, 3, 1, 4])
        queries, keys, values = tf.unstack(by_head)
        weights = tf.nn.softmax(tf.matmul(queries, keys, transpose_b=True) / math.sqrt(size))
        taken = tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3])
        return by_token(self.outputs, tf.reshape(taken, [-1, num_tokens, self._width]))


class EncoderBlock(snt.Module):
    """tokens + attention(norm(tokens)), and to that its own two-layer network behind a norm: [B, T, d] -> [B, T, d]."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: int,
        initial: initialisations.Initialisation,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.attention_norm = layer_norm()
        self.attention = Attention(width, num_heads, initial)
        self.mlp_norm = layer_norm()
        self.mlp_hidden = snt.Linear(mlp_ratio * width, w_init=initial.branch)
        self.mlp_outputs = snt.Linear(width, w_init=initial.branch_end)

    def __call__(self, tokens: tf.Tensor) -> tf.Tensor:
        """The tokens with what both branches add."""
        tokens += self.attention(self.attention_norm(tokens))
        hidden = tf.nn.gelu(by_token(self.mlp_hidden, self.mlp_norm(tokens)))
        return tokens + by_token(self.mlp_outputs, hidden)


class VisionTransformer(snt.Module):
    """A classifier; all sizes are ours.

    Args:
        num_classes: number of logits K.
        width: d, a multiple of num_heads.
        depth: L, the number of blocks.
        num_heads: of the attention.
        patch_size: p, in pixels; H and W are multiples of it.
        mlp_ratio: r.
        initialisation: one of `initialisation.NAMES`, whose L counts two branches in a block. Embeddings of positions
            always begin with a standard deviation of 0.02.

    Raises:
        InvalidValueError: a setting lies outside these.
    """

    def __init__(
        self,
        num_classes: int,
        width: int = 128,
        depth: int = 6,
        num_heads: int = 4,
        patch_size: int = 4,
        mlp_ratio: int = 2,
        initialisation: str = "default",
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        sizes = {"width": width, "depth": depth, "num_heads": num_heads, "patch_size": patch_size}
        for option, value in {**sizes, "mlp_ratio": mlp_ratio}.items():
            widths.check_number(option, value)
        if width % num_heads:
            raise errors.InvalidValueError(
                f"width {width} with {num_heads} heads: expected a multiple of num_heads; change one of them"
            )
        initial = initialisations.of(initialisation, batch_norm=False, num_branches=2 * depth)
        self._patch_size = patch_size
        self.patches = snt.Conv2D(width, patch_size, stride=patch_size, padding="VALID", w_init=initial.weights)
        self.blocks = [EncoderBlock(width, num_heads, mlp_ratio, initial) for _ in range(depth)]
        self.norm = layer_norm()
        self.prediction = snt.Linear(num_classes, w_init=initial.logits)

    def __call__(self, images: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Logits of images.

        Args:
            images: [B, H, W, C] floating, always of the same H and W.
            is_training: accepted as every model here does.

        Returns:
            [B, K] logits of the same dtype.

        Raises:
            InvalidValueError: patches do not fill the images.
        """
        del is_training
        height, width = images.shape[1:3]
        if height % self._patch_size or width % self._patch_size:
            raise errors.InvalidValueError(
                f"patch_size {self._patch_size}: images of {height}x{width} pixels are not filled by such patches; "
                "choose a divisor of both sides"
            )
        maps = self.patches(images)
        tokens = tf.reshape(maps, [-1, maps.shape[1] * maps.shape[2], maps.shape[3]])
        self._create_positions(tokens)
        tokens += self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.prediction(tf.reduce_mean(self.norm(tokens), axis=1))

    @snt.once
    def _create_positions(self, tokens: tf.Tensor) -> None:
        values = snt.initializers.TruncatedNormal(stddev=_POSITION_STDDEV)(tokens.shape[1:], tokens.dtype)
        self.positions = tf.Variable(values, name="positions")


def layer_norm() -> snt.LayerNorm:
    """Each token by its own mean and variance, with a learned scale and offset for each of its numbers."""
    return snt.LayerNorm(axis=-1, create_scale=True, create_offset=True)


def by_token(layer: snt.Linear, tokens: tf.Tensor) -> tf.Tensor:
    """A linear layer for every token, [B, T, I] -> [B, T, O], as one matrix product."""
    outputs = layer(tf.reshape(tokens, [-1, tokens.shape[2]]))
    return tf.reshape(outputs, [-1, tokens.shape[1], outputs.shape[1]])
