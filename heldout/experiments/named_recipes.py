"""Recipes by name: the value of `train_runs --recipe`.

Each says where its numbers come from, as far as that is known here. "Our choice" is said of every number that no
source gives for certain; such a zoo is sound in itself, but it need not agree with a published one.
"""

from collections.abc import Mapping
import dataclasses
import json
import textwrap
import types
from typing import Any

from heldout.experiments import training_config
from zoo import errors, layout

_WIDTH = 94
_CSCORE_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclasses.dataclass(frozen=True)
class NamedRecipe:
    """What one name stands for.

    Attributes:
        name: also the name of the experiment, unless another is given.
        dataset: as `--dataset` takes it.
        architecture: a name of heldout/models/registry.py.
        architecture_options: its keyword arguments.
        training: optimisation.
        subset_ratios: each in (0, 1).
        num_runs: at each ratio; run ids are 0 to num_runs - 1.
        source: where the numbers come from, and which are our choice.
    """

    name: str
    dataset: str
    architecture: str
    training: training_config.TrainingConfig
    num_runs: int
    source: str
    subset_ratios: tuple[float, ...] = (0.7,)
    architecture_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_MNIST_MLP = training_config.TrainingConfig(num_epochs=10, batch_size=128, learning_rate=0.1, momentum=0.9)
_MLP_SIZES = types.MappingProxyType({"hidden_sizes": [512, 256]})
_LENET = training_config.TrainingConfig(num_epochs=15, batch_size=128, learning_rate=0.05, schedule="cosine")
_SVHN_LENET = training_config.TrainingConfig(num_epochs=20, batch_size=128, learning_rate=0.02, schedule="cosine")
_INCEPTION = training_config.TrainingConfig(
    num_epochs=100,
    batch_size=128,
    learning_rate=0.1,
    weight_decay=5e-4,
    schedule="cosine",
    warmup_epochs=5.0,
    augmentation=("crop", "flip"),
)
_SVHN_INCEPTION = training_config.TrainingConfig(
    num_epochs=40, batch_size=128, learning_rate=0.1, weight_decay=5e-4, schedule="cosine", warmup_epochs=2.0
)
_RESNET50 = training_config.TrainingConfig(
    num_epochs=90,
    batch_size=256,
    learning_rate=0.1,
    weight_decay=1e-4,
    schedule="step",
    warmup_epochs=5.0,
    step_epochs=(30, 60, 80),
)
_RUNS_OURS = "The number of runs is our choice."
_ZOO = (
    "Architecture and data set are those of the zoo of this name that was published with Feldman & Zhang (2020) and "
    "Jiang et al. (2021). Batch size, rate, schedule, weight decay, augmentation and epochs are our choice: the zoo "
    "does not carry them. Ratio 0.7 is that of Feldman & Zhang; the number of runs is our choice."
)

_ALL = (
    NamedRecipe(
        "mnist-mlp",
        "mnist",
        "mlp",
        _MNIST_MLP,
        400,
        "Architecture and optimisation: the published recipe of the C-scores of MNIST (Jiang et al. 2021). Ratio 0.7: "
        f"Feldman & Zhang (2020). {_RUNS_OURS}",
        architecture_options=_MLP_SIZES,
    ),
    NamedRecipe(
        "mnist-mlp-consistency",
        "mnist",
        "mlp",
        _MNIST_MLP,
        200,
        "As mnist-mlp, over the ratios 0.1 to 0.9 as the consistency profile of Jiang et al. (2021) wants them. "
        f"{_RUNS_OURS}",
        subset_ratios=_CSCORE_RATIOS,
        architecture_options=_MLP_SIZES,
    ),
    NamedRecipe(
        "digits-mlp",
        "digits",
        "mlp",
        training_config.TrainingConfig(num_epochs=20, batch_size=64),
        400,
        "That of `make demo`, at its main ratio; all our choice, for minutes on two cores.",
        architecture_options=types.MappingProxyType({"hidden_sizes": [256, 128]}),
    ),
    NamedRecipe(
        "mnist-lenet", "mnist", "lenet", _LENET, 400, "LeCun et al. (1998) for the network; the rest is our choice."
    ),
    NamedRecipe(
        "fashion-mnist-mlp",
        "fashion_mnist",
        "mlp",
        _MNIST_MLP,
        400,
        "The recipe of mnist-mlp on another data set: our choice.",
        architecture_options=_MLP_SIZES,
    ),
    NamedRecipe("fashion-mnist-lenet", "fashion_mnist", "lenet", _LENET, 400, "As mnist-lenet: our choice."),
    NamedRecipe("svhn-lenet", "svhn_cropped", "lenet", _SVHN_LENET, 400, "All our choice, without augmentation."),
    NamedRecipe(
        "svhn-inception",
        "svhn_cropped",
        "small_inception",
        _SVHN_INCEPTION,
        100,
        "The network of the published CIFAR zoos; the rest is our choice, without augmentation.",
    ),
    NamedRecipe("cifar10-inception", "cifar10", "small_inception", _INCEPTION, 400, _ZOO),
    NamedRecipe("cifar100-inception", "cifar100", "small_inception", _INCEPTION, 400, _ZOO),
    NamedRecipe(
        "imagenet-resnet50",
        "records:imagenet",
        "resnet50",
        _RESNET50,
        100,
        f"{_ZOO} The schedule is the customary one of He et al. (2016) with the warm-up of Goyal et al. (2017). "
        "Crops and flips are left to the reader of the image records. Give --dataset=records:FOLDER, their folder.",
    ),
)
NAMED: Mapping[str, NamedRecipe] = types.MappingProxyType({recipe.name: recipe for recipe in _ALL})


def find(name: str) -> NamedRecipe:
    """The recipe of a name.

    Raises:
        InvalidValueError: there is none.
    """
    if name not in NAMED:
        raise errors.InvalidValueError(
            f"--recipe={name}: no such recipe; expected one of {', '.join(NAMED)}, or help, which explains them"
        )
    return NAMED[name]


def describe() -> str:
    """All recipes for people: what each sets, and where it comes from."""
    return "\n\n".join(_describe(recipe) for recipe in NAMED.values())


def _describe(recipe: NamedRecipe) -> str:
    ratios = ",".join(layout.ratio_name(ratio) for ratio in recipe.subset_ratios)
    options = f" {json.dumps(dict(recipe.architecture_options))}" if recipe.architecture_options else ""
    lines = [
        f"{recipe.dataset}, {recipe.architecture}{options}, ratio {ratios}, {recipe.num_runs} runs at each",
        optimisation(recipe.training),
        recipe.source,
    ]
    texts = [textwrap.fill(line, _WIDTH, initial_indent="  ", subsequent_indent="    ") for line in lines]
    return "\n".join([recipe.name, *texts])


def optimisation(config: training_config.TrainingConfig) -> str:
    """The hyper-parameters of a training on a line: those that are always of interest, and what is not the default."""
    always = ("num_epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "schedule")
    fields = {field.name: field.default for field in dataclasses.fields(config)}
    shown = {name: getattr(config, name) for name in fields if name in always or getattr(config, name) != fields[name]}
    return "SGD: " + ", ".join(
        f"{name} {'+'.join(map(str, value)) if isinstance(value, tuple) else value}" for name, value in shown.items()
    )
