"""A page of test images, each beside the training images that help it most and those that harm it most.

One HTML file that stands alone. The values are of one estimator; how good it is, the page cannot know.
"""

from collections.abc import Sequence
import dataclasses

from heldout.datasets import dataset as dataset_lib
from heldout.report import images, page


@dataclasses.dataclass(frozen=True)
class Effect:
    """A training example and its influence on a test example; positive helps."""

    train_index: int
    label: int
    value: float


@dataclasses.dataclass(frozen=True)
class Story:
    """A test example with the training examples that help it most and those that harm it most.

    `predicted` is the class that the model gives it; None where there is no choice between classes.
    """

    test_index: int
    label: int
    predicted: int | None
    helpful: tuple[Effect, ...]
    harmful: tuple[Effect, ...]

    @property
    def largest(self) -> float:
        """The largest absolute value, to which the bars of this example are drawn."""
        return max((abs(effect.value) for effect in (*self.helpful, *self.harmful)), default=1.0)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the page says above the images.

    Attributes:
        title: of the page, such as the model.
        method: the estimator.
        quantity: what a positive value means.
        num_train, num_test: how many examples there are scores for.
    """

    title: str
    method: str
    quantity: str
    num_train: int
    num_test: int


def build(data: dataset_lib.Dataset, facts: Facts, stories: Sequence[Story]) -> str:
    """The page.

    Args:
        data: images, labels and class names.
        facts: its head.
        stories: the test examples, in the order in which they are shown.

    Raises:
        InvalidValueError: images of this shape cannot be drawn.
    """
    images.check_drawable(data.image_shape, data.name)
    table = images.ImageTable(data.scale)
    names = {}
    for story in stories:
        names[f"test-{story.test_index}"] = table.add(data.test.images[story.test_index])
        for effect in (*story.helpful, *story.harmful):
            names[f"train-{effect.train_index}"] = table.add(data.train.images[effect.train_index])
    template = page.environment(data.class_names).get_template("attribution.html.j2")
    return template.render(
        facts=facts,
        stories=stories,
        images=names,
        image_rules=table.style_sheet(),
    )
