"""Networks that are trained on other data first, whose bodies experiments begin with: commands, and where they lie."""

import dataclasses
import json
from typing import Any

from heldout.experiments import data_split, training_config
from heldout.training import model_files, model_settings
from scripts.unique_information import recipes_commands

_NAME = "bodies"


@dataclasses.dataclass(frozen=True)
class Body:
    """A network to be trained by train_model.

    Attributes:
        model: architecture.
        dataset: what it is trained on.
        epochs: passes over it.
        options: of the architecture.
        learning_rate: of SGD with momentum.
        batch_size: examples in a step; small ones for averages of batch normalisation that have seen enough steps.
    """

    model: str
    dataset: str
    epochs: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    learning_rate: float = 0.05
    batch_size: int = 128

    def command(self, setting: recipes_commands.Setting, save_dir: str) -> recipes_commands.Command:
        """Trains it, on pixels in [0, 1] as experiments have them.

        Args:
            setting: shared flags.
            save_dir: of train_model.
        """
        options = {"model_options": json.dumps(self.options)} if self.options else {}
        flags: dict[str, recipes_commands.Value] = {
            "model": self.model,
            **options,
            "dataset": self.dataset,
            "standardise": "false",
            "val_split": "0",
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "save_dir": save_dir,
            "name": _NAME,
        }
        return recipes_commands.Command("train_model", flags | setting.shared_flags())

    def checkpoint(self, save_dir: str) -> str:
        """The prefix of the checkpoint at its end."""
        training = training_config.TrainingConfig(
            num_epochs=self.epochs, learning_rate=self.learning_rate, batch_size=self.batch_size
        )
        settings = model_settings.ModelSettings(
            self.dataset,
            self.model,
            training,
            self.options,
            val_split=data_split.parse("val_split", "0"),
            standardise=False,
        )
        folder = model_files.directory(save_dir, _NAME, settings)
        return str(model_files.checkpoint_prefix(folder, self.epochs))


def letters(setting: recipes_commands.Setting) -> Body:
    """The CNN on the letters of EMNIST; small: on all digits."""
    if setting.small:
        return Body("lenet", "digits", 8)
    return Body("conv5_32", "emnist_letters", 20)


def resnet18(setting: recipes_commands.Setting) -> Body:
    """ResNet-18 on CIFAR-100, in the place of ImageNet; small: a narrow one on all digits."""
    options = {"batch_norm": True}
    if setting.small:
        return Body("resnet18_4", "digits", 10, options, batch_size=32)
    return Body("resnet18_64", "cifar100", 60, options)


def resnet50(setting: recipes_commands.Setting) -> Body:
    """Of the small form, where there are no ImageNet weights: ResNet-50 on all digits."""
    assert setting.small
    return Body("keras:ResNet50", "digits", 2, learning_rate=0.01, batch_size=8)
