"""How the weights of a network begin, by name, where an architecture leaves the choice; biases begin at zero.

    default          Sonnet's: truncated normal of standard deviation 1 / sqrt(fan_in)
    kaiming_normal   normal of standard deviation sqrt(2 / fan_in) for every weight (He et al., 2015, arXiv:1502.01852)
    fixup            for networks without batch normalisation (Zhang, Dauphin & Ma, 2019, arXiv:1901.09321): the last
                     layer, and the last weights of every residual branch, begin at zero; the other weights of the L
                     branches, of two layers each, are those of Kaiming times L^(-1/2), all else is Kaiming. So every
                     block begins as its shortcut, logits as zero, cross-entropy as ln K and the input Jacobian as
                     zero. The paper's scalar multipliers and biases are left out: the biases of the layers stand for
                     the latter, and a network has the same parameters under every initialisation.

fan_in is the number of products that are summed in an output: channels times the window of a convolution.
"""

import dataclasses

import sonnet as snt

from zoo import errors

NAMES = ("default", "kaiming_normal", "fixup")


@dataclasses.dataclass(frozen=True)
class Initialisation:
    """Initialisers by place in a network; None is Sonnet's own.

    Attributes:
        name: one of `NAMES`.
        num_branches: L, the number of residual branches; 0 in a plain network.

    Raises:
        InvalidValueError: the name is none of these.
    """

    name: str
    num_branches: int = 0

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise errors.InvalidValueError(f"initialisation {self.name!r}: expected one of {', '.join(NAMES)}")

    @property
    def weights(self) -> snt.initializers.Initializer | None:
        """Outside of residual branches, but for the last layer."""
        return None if self.name == "default" else _kaiming(1.0)

    @property
    def branch(self) -> snt.initializers.Initializer | None:
        """In a residual branch, but for its last weights."""
        return _kaiming(1 / self.num_branches) if self.name == "fixup" else self.weights

    @property
    def branch_end(self) -> snt.initializers.Initializer | None:
        """The last weights of a residual branch."""
        return self.logits

    @property
    def logits(self) -> snt.initializers.Initializer | None:
        """The last layer."""
        return snt.initializers.Zeros() if self.name == "fixup" else self.weights


def _kaiming(variance_factor: float) -> snt.initializers.Initializer:
    return snt.initializers.VarianceScaling(2.0 * variance_factor, "fan_in", "normal")


def of(name: str, *, batch_norm: bool, num_branches: int = 0) -> Initialisation:
    """The initialisation of a network.

    Args:
        name: one of `NAMES`.
        batch_norm: whether the network has batch normalisation behind its convolutions.
        num_branches: residual branches in it.

    Raises:
        InvalidValueError: the name is none of these, or it is "fixup" with batch normalisation, which would divide
            branches that give nothing but zeros by their standard deviation.
    """
    if name == "fixup" and batch_norm:
        raise errors.InvalidValueError(
            "initialisation 'fixup' with batch_norm=True: it stands in the place of batch normalisation; leave out one"
        )
    return Initialisation(name, num_branches)
