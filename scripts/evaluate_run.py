"""Rebuilds one run from its checkpoint and cross-checks every prediction with its aux_arrays.npz.

    python -m scripts.evaluate_run --run=/tmp/zoo/digits-mlp/0.7/12 --split=train

Architecture and data set follow from the zoo's recipe.json, or from the folder's name for the published experiments
(cifar10-inception, cifar100-inception; for imagenet-resnet50 say where its image records are, --dataset=records:PATH);
otherwise give --arch and --dataset. --split=train is the whole original training set, examples trained on and held out
together, compared by index. A healthy run prints

    accuracy: 0.9990 in subset, 0.9582 held out
    1438 of 1438 predictions match

and ends with status 0; otherwise every prediction that differs is listed and the status is 1.
"""

from collections.abc import Sequence

from absl import flags

from heldout.evaluation import evaluation_results
from heldout.running import workers
from scripts import choices, cli, common_flags
from zoo import layout

_SHARED_FLAGS = ("dataset", "data_dir", "device")

_RUN = flags.DEFINE_string("run", None, "Folder of the run: <zoo>/<experiment>/<subset_ratio>/<run_id>.")
_SPLIT = flags.DEFINE_enum("split", "test", evaluation_results.SPLITS, "Which examples to predict.")
_ARCH = flags.DEFINE_string("arch", None, "Architecture, where no recipe tells; a wrong one is refused.")
_EPOCH = flags.DEFINE_integer("epoch", None, "Epoch of the checkpoint; without it the last one.")


def run(argv: Sequence[str]) -> int:
    """Flags -> evaluation -> comparison. Status 0 only if all predictions match."""
    del argv
    run_directory = choices.required_path("run", _RUN.value)
    layout.run_from_directory(run_directory)
    options = {
        "split": _SPLIT.value,
        "dataset": choices.dataset(common_flags.DATASET.value),
        "architecture": _ARCH.value,
        "data_dir": choices.path(common_flags.DATA_DIR.value),
        "epoch": _EPOCH.value,
    }
    messages = workers.run_tasks(
        "heldout.evaluation.evaluate_worker",
        {"device": common_flags.DEVICE.value},
        [{"run": run_directory, "options": options}],
        num_workers=1,
        threads_per_worker=workers.num_cores(),
    )
    found = [message["evaluation"] for message in messages if "evaluation" in message]
    result = evaluation_results.RunEvaluation.from_json(found[0])
    print(
        "accuracy: " + ", ".join(f"{value:.4f} {part}" for part, value in sorted(result.accuracy.items(), reverse=True))
    )
    for item in result.disagreements:
        print(
            f"differs: index {item.index} ({item.part}), label {item.label}, predicted {item.prediction}, recorded as "
            f"{'right' if item.recorded_correct else 'wrong'}, margin {item.margin:.3g}"
        )
    num_matching = result.num_predictions - len(result.disagreements)
    print(f"{num_matching} of {result.num_predictions} predictions match")
    return 1 if result.disagreements else 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
