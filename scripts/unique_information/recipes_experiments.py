"""The experiments of Harutyunyan et al. (ICLR 2021, arXiv:2101.06640), each as commands with its hyper-parameters.

Correlations with retraining (their table 1), label errors, rare sources and subclasses, summaries of data sets, and the
animation of points in the plane. Training is full-batch gradient descent on 1/2 |f - y|^2, on n = 1000 examples and up
to 1000 for validation. lam = 1000 is l2 = 1 at n = 1000. What the source leaves open is said in the notes.
"""

from collections.abc import Callable, Mapping
import json

from scripts.unique_information import recipes_bodies, recipes_commands

Command = recipes_commands.Command
Setting = recipes_commands.Setting
Value = recipes_commands.Value
Flags = Mapping[str, Value]
_MEASURES = "weights,predictions,influence_functions"
_COLUMNS = "weights,predictions,influence_weights,influence_predictions"
_PETS = {"0": [3, 5], "1": [4]}


def _mlp(setting: Setting) -> dict[str, Value]:
    """MNIST 4 and 9, one hidden layer."""
    if setting.small:
        options = {"arch": "mlp", "arch_options": '{"hidden_sizes": [64]}'}
        return _digits(60) | options | {"learning_rate": 0.05, "num_steps": 400}
    options = {"arch": "mlp", "arch_options": '{"hidden_sizes": [1024]}'}
    return _drawn("mnist") | {"classes": "4,9"} | options | {"learning_rate": 0.001, "num_steps": 2000}


def _drawn(dataset: str) -> dict[str, Value]:
    return {"dataset": dataset, "num_train": 1000, "num_val": 1000}


def _digits(number: int) -> dict[str, Value]:
    return {"dataset": "digits", "num_train": number, "num_val": number, "classes": "4,9"}


def _cnn(setting: Setting, learning_rate: float) -> dict[str, Value]:
    if setting.small:
        return _digits(40) | {"arch": "lenet", "learning_rate": 2 * learning_rate, "num_steps": 100}
    network: dict[str, Value] = {"arch": "conv5_32", "learning_rate": learning_rate, "num_steps": 2000}
    return _drawn("mnist") | {"classes": "4,9"} | network


def _with_body(setting: Setting, flags: Flags, body: recipes_bodies.Body) -> tuple[list[Command], dict[str, Value]]:
    """Commands that train a body, which several experiments share, and the flags of one that begins with it."""
    given = setting.body if body.model.startswith("resnet18") and not setting.small else None
    save_dir = f"{setting.outdir}/networks"
    commands = [] if given is not None else [body.command(setting, save_dir)]
    start: dict[str, Value] = {"init_checkpoint": given or body.checkpoint(save_dir), "init_body": True}
    return commands, {**flags, **start}


def _resnet18(setting: Setting, dataset: str, rate: float) -> tuple[list[Command], dict[str, Value]]:
    body = recipes_bodies.resnet18(setting)
    network = {"arch": body.model, "arch_options": json.dumps(body.options)}
    if setting.small:
        flags = _digits(30) | network | {"learning_rate": 0.002, "num_steps": 40}
    else:
        flags = _drawn(f"{dataset}_64") | network | {"learning_rate": rate, "num_steps": 1000}
    return _with_body(setting, flags, body)


def _resnet50(setting: Setting, dataset: str, rate: float) -> tuple[list[Command], dict[str, Value]]:
    if setting.small:
        body = recipes_bodies.resnet50(setting)
        flags = _digits(12) | {"arch": body.model, "learning_rate": 0.0001, "num_steps": 4}
        return _with_body(setting, flags, body)
    network = {"arch": "keras:ResNet50", "arch_options": '{"weights": "imagenet"}'}
    return [], _drawn(f"{dataset}_224") | network | {"learning_rate": rate, "num_steps": 1000}


def _correlations(setting: Setting, folder: str, flags: Flags, *, which: str = "all") -> list[Command]:
    """Retraining without each example beside linearised scores and influence functions, for both values of l2."""
    shared, commands = setting.shared_flags(), []
    for suffix, l2 in (("", {}), ("-l2", {"l2": 1.0})):
        truth, scores = f"{folder}/truth{suffix}", f"{folder}/information{suffix}"
        trained = {**flags, **l2, "which": which, "outdir": truth}
        measured = {"experiment": truth, "measure": _MEASURES, "outdir": scores}
        commands += [
            Command("ground_truth_effects", trained | shared),
            Command("compute_unique_information", measured | shared),
            _agreement(truth, scores, f"{folder}/agreement{suffix}"),
        ]
    # Whether the pull to the initialisation makes scores better that stand for a training without it.
    return [*commands, _agreement(f"{folder}/truth", f"{folder}/information-l2", f"{folder}/agreement-l2-scores-only")]


def _agreement(truth: str, scores: str, outdir: str) -> Command:
    flags = {"ground_truth": truth, "scores": f"{scores}/unique_information.npz", "columns": _COLUMNS, "outdir": outdir}
    return Command("aggregate_ground_truth", flags)


def _mnist_mlp(setting: Setting, folder: str) -> list[Command]:
    return _correlations(setting, folder, _mlp(setting))


def _mnist_cnn(setting: Setting, folder: str) -> list[Command]:
    return _correlations(setting, folder, _cnn(setting, 0.01))


def _mnist_cnn_pretrained(setting: Setting, folder: str) -> list[Command]:
    body = recipes_bodies.letters(setting)
    commands, flags = _with_body(setting, _cnn(setting, 0.002), body)
    return commands + _correlations(setting, folder, flags)


def _photographs(
    network: Callable[[Setting, str, float], tuple[list[Command], dict[str, Value]]], dataset: str
) -> Callable[[Setting, str], list[Command]]:
    def make(setting: Setting, folder: str) -> list[Command]:
        commands, flags = network(setting, dataset, 0.001)
        few = f"random:{int(str(flags['num_train'])) // 3}"
        return commands + _correlations(setting, folder, flags, which=few if setting.small else "all")

    return make


def _mislabeled(setting: Setting, folder: str, commands: list[Command], flags: Flags) -> list[Command]:
    shared, scores = setting.shared_flags(), f"{folder}/information"
    noisy = {**flags, "label_noise": 0.1, "measure": _MEASURES, "outdir": scores}
    path = f"{scores}/unique_information.npz"
    found = {"scores": path, "column": _COLUMNS, "labels": path, "outdir": f"{folder}/mislabeled"}
    return [
        *commands,
        Command("compute_unique_information", noisy | shared),
        Command("detect_mislabeled", found),
    ]


def _mislabeled_mnist(setting: Setting, folder: str) -> list[Command]:
    return _mislabeled(setting, folder, [], _mlp(setting))


def _mislabeled_cats_dogs(setting: Setting, folder: str) -> list[Command]:
    return _mislabeled(setting, folder, *_resnet18(setting, "cats_vs_dogs", 0.001))


def _groups(setting: Setting, folder: str, flags: Flags, by: str) -> list[Command]:
    """The full network, whose folder says the experiment, scores, and groups of them."""
    shared, truth = setting.shared_flags(), f"{folder}/truth"
    measured = {"experiment": truth, "measure": "weights,predictions", "outdir": f"{folder}/information"}
    compared = {
        "scores": f"{folder}/information/unique_information.npz",
        "column": "weights,predictions",
        "experiment": truth,
        "by": by,
        "outdir": f"{folder}/groups",
    }
    return [
        Command("ground_truth_effects", {**flags, "which": "random:1", "outdir": truth} | shared),
        Command("compute_unique_information", measured | shared),
        Command("compare_groups", compared | shared),
    ]


def _rare_subclass(setting: Setting, folder: str) -> list[Command]:
    if setting.small:
        own = {"coarse_labels": '{"0": [4, 7], "1": [9]}', "class_counts": "4:25,7:5"}
        flags = {name: value for name, value in _mlp(setting).items() if name != "classes"} | own
        return _groups(setting, folder, flags, "subclass")
    body = recipes_bodies.resnet18(setting)
    rare = {"coarse_labels": json.dumps(_PETS), "class_counts": "3:100,5:400"}
    network = {"arch": body.model, "arch_options": json.dumps(body.options)}
    flags = _drawn("cifar10") | rare | network | {"learning_rate": 0.001, "num_steps": 1000}
    commands, flags = _with_body(setting, flags, body)
    return commands + _groups(setting, folder, flags, "subclass")


def _rare_source(setting: Setting, folder: str) -> list[Command]:
    path = f"{folder}/sources.npz"
    second: dict[str, Value] = {"first": "mnist", "second": "svhn_cropped"}
    if setting.small:
        second = {"first": "digits", "second": "digits", "reverse_second": True}
    data_dir = {} if setting.data_dir is None else {"data_dir": setting.data_dir}
    mixed = Command("mix_sources", {**second, "share": 0.1, "output": path, **data_dir})
    flags = _mlp(setting) | {"dataset": f"npz:{path}", "val_split": "test"}
    return [mixed, *_groups(setting, folder, flags, "source")]


def _summary(setting: Setting, folder: str, commands: list[Command], flags: Flags) -> list[Command]:
    ways: dict[str, Value] = {"ways": "top,bottom,random,iterative_top,iterative_bottom"}
    if setting.small:
        ways |= {"ratios": "0,0.5,0.8", "num_seeds": 2}
    summarised = {**flags, "measure": "predictions", **ways, "outdir": f"{folder}/summary"}
    return [*commands, Command("summarize_dataset", summarised | setting.shared_flags())]


def _summarize_mnist(setting: Setting, folder: str) -> list[Command]:
    return _summary(setting, folder, [], _mlp(setting))


def _summarize_cassava(setting: Setting, folder: str) -> list[Command]:
    return _summary(setting, folder, *_resnet18(setting, "cassava", 0.0003))


def _synthetic(setting: Setting, folder: str) -> list[Command]:
    flags: dict[str, Value] = {
        "dataset": "gaussians",
        "num_train": 40,
        "num_val": 200,
        "label_noise": "symmetric:1",
        "arch_options": '{"hidden_sizes": [512]}',
        "learning_rate": 0.01,
        "num_steps": 10000,
    }
    if setting.small:
        flags |= {"num_train": 20, "num_val": 50, "arch_options": '{"hidden_sizes": [64]}', "num_steps": 500}
    own: dict[str, Value] = {"outdir": f"{folder}/animation"} | ({"num_frames": 8} if setting.small else {})
    commands = [Command("animate_unique_information", flags | own | setting.shared_flags())]
    return commands + _correlations(setting, folder, flags)[:3]


_STEPS = "The source names no steps for the CNNs; they are those of the MLP. The CNN is conv5_32, our choice."
_RESNET18 = (
    "ResNet-18 is the form for small images, at 64 x 64 pixels, and its body is trained on CIFAR-100; --body names one "
    "of ImageNet, as the source had."
)
_RESNET50 = "Keras downloads the ImageNet weights once; small: a body that is trained on digits."
EXPERIMENTS: dict[str, recipes_commands.Experiment] = {
    one.name: one
    for one in (
        recipes_commands.Experiment("mnist-mlp", "scores against retraining: MNIST 4 and 9, MLP of 1024", _mnist_mlp),
        recipes_commands.Experiment("mnist-cnn", "the same with a CNN from scratch", _mnist_cnn, _STEPS),
        recipes_commands.Experiment(
            "mnist-cnn-pretrained",
            "the same with a CNN whose body was trained on EMNIST letters",
            _mnist_cnn_pretrained,
            _STEPS,
        ),
        recipes_commands.Experiment(
            "cats-dogs-resnet18",
            "cats and dogs, pretrained ResNet-18",
            _photographs(_resnet18, "cats_vs_dogs"),
            _RESNET18,
        ),
        recipes_commands.Experiment(
            "cats-dogs-resnet50",
            "cats and dogs, pretrained ResNet-50",
            _photographs(_resnet50, "cats_vs_dogs"),
            _RESNET50,
        ),
        recipes_commands.Experiment(
            "cassava-resnet18", "iCassava, pretrained ResNet-18", _photographs(_resnet18, "cassava"), _RESNET18
        ),
        recipes_commands.Experiment(
            "cassava-resnet50", "iCassava, pretrained ResNet-50", _photographs(_resnet50, "cassava"), _RESNET50
        ),
        recipes_commands.Experiment(
            "mislabeled-mnist", "do scores find 10 % wrong labels? MNIST 4 and 9, MLP", _mislabeled_mnist
        ),
        recipes_commands.Experiment(
            "mislabeled-cats-dogs", "the same of cats and dogs, ResNet-18", _mislabeled_cats_dogs, _RESNET18
        ),
        recipes_commands.Experiment(
            "rare-subclass",
            "are examples of a rare subclass informative? CIFAR-10, cats among dogs against deer",
            _rare_subclass,
            f"100 cats, 400 dogs and 500 deer are our choice. {_RESNET18}",
        ),
        recipes_commands.Experiment(
            "rare-source",
            "are examples of a rare source informative? 4 and 9, of MNIST and one in ten of SVHN",
            _rare_source,
            "Sources and share are our choice; small: digits with light and dark swapped.",
        ),
        recipes_commands.Experiment(
            "summarize-mnist", "accuracy without the most or least informative: MNIST 4 and 9", _summarize_mnist
        ),
        recipes_commands.Experiment(
            "summarize-cassava", "the same of iCassava, ResNet-18, rate 3e-4", _summarize_cassava, _RESNET18
        ),
        recipes_commands.Experiment(
            "synthetic",
            "points of two normal distributions over time, one with a wrong label: animation, and retraining",
            _synthetic,
            "Sizes are our choice.",
        ),
    )
}
