"""ResNet-50 is the published network: keys, shapes and logits."""

from heldout.models import registry
from tests.heldout.models import golden

# float32 sums in another order, through 50 layers, relative to the largest logit.
_RELATIVE_TOLERANCE = 1e-5


def test_it_is_the_published_network():
    listing = golden.read("resnet50_1000")
    model = registry.build("resnet50", 1000, tuple(listing["input_shape"][1:]))
    assert golden.shapes(model) == listing["variables"]
    assert golden.relative_logit_error(model, listing) < _RELATIVE_TOLERANCE
