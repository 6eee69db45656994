"""Trains one network, by name and width, with label noise and checkpoints as asked for.

    python -m scripts.train_model --model=conv5_8 --dataset=digits --label_noise=0.1 --epochs=20 --save_dir=/tmp/nets

reads the data set and writes, under SAVE_DIR/NAME/MODEL/DATA/SETTING/seed-S/, with a name of the setting that tells
what matters and ends in a digest of the rest,

    settings.json                      everything that decides the network, with its four seeds
    checkpoints/epoch-20.index, ...    weights after the chosen epochs and at the end, a tf.train.Checkpoint
    history.csv                        losses and errors of every evaluation
    result.json                        how it ended

A healthy run ends with lines such as

    finished: 20 epochs done, train loss 0.2018 error 0.0612 (0.0535 on clean labels), test error 0.0557
    network: /tmp/nets/networks/conv5_8/digits/noise-symmetric-0.1_lr-0.1_epochs-20_069c4092/seed-0

The same command again continues after a kill, to the last bit as if there had been none, and does nothing when all is
there; --overwrite trains anew. Each of --data_split_seed, --label_seed, --mc_sample_seed and --seed does its own job
only. $SAVE_DIR, $NAME, $DATA_DIR and $DEVICE stand for flags that are not given; hyphens in names of flags are
underscores. A loss that is no number ends the training with status 1, and result.json says so.
Next: compute_jacobian_stats --run=FOLDER; or train_sweep for many widths.
"""

from collections.abc import Sequence
import pathlib
import sys
from typing import Any

from absl import flags

from heldout.running import runners
from heldout.training import model_files, model_settings
from scripts import choices, cli, common_flags, old_command_lines
from scripts.model_training import command_lines, dispatch, network_flags, progress

_SHARED_FLAGS = ("dataset", "data_dir", "device", *network_flags.NAMES)

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Architecture, with a width behind those that have one: conv5_16, resnet18_64, resnet34_8, vgg11_16, vit_32, "
    "small_inception_24; mlp, lenet, resnet50; or module:callable for one of your own.",
)
_LABEL_NOISE = flags.DEFINE_string(
    "label_noise",
    "none",
    "Training labels to change: a share like 0.2 (symmetric), or symmetric, pair or asymmetric with a share or a "
    "number, as in pair:0.1 or symmetric:300, or class_conditional with --label_map.",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of initial values, order of examples and augmentation.")


def run(argv: Sequence[str]) -> int:
    """Flags -> settings -> training. Status 1 if the training diverged."""
    del argv
    old_command_lines.check_environment()
    settings = network_flags.settings(choices.required("model", _MODEL.value), _LABEL_NOISE.value, _SEED.value)
    folder = model_files.directory(network_flags.save_dir(), network_flags.NAME.value, settings)
    how = dispatch.HowToTrain(
        data_dir=choices.path(common_flags.DATA_DIR.value),
        device=network_flags.device(),
        resume_minutes=network_flags.RESUME_MINUTES.value,
        tensorboard=network_flags.TENSORBOARD.value,
        overwrite=network_flags.OVERWRITE.value,
    )
    result = None if how.overwrite else model_files.finished_result(folder, settings)
    up_to_date = result is not None
    if result is None:
        result = _train(settings, folder, how)
    print(progress.result_text(result))
    print(f"network{' (was there, nothing to do)' if up_to_date else ''}: {folder}")
    return 1 if result["outcome"] == model_files.DIVERGED else 0


def _train(settings: model_settings.ModelSettings, folder: pathlib.Path, how: dispatch.HowToTrain) -> dict[str, Any]:
    line = progress.Line(sys.stderr if network_flags.PROGRESS.value else None)
    networks = [dispatch.Networks(settings, {settings.seed: folder})]
    results = []
    try:
        for message in dispatch.train(how, networks, runners.Runner(), 1):
            if "note" in message:
                line.note(message["note"])
            elif "progress" in message:
                line.show(progress.epoch_text(message["progress"]))
            results += message.get("results", [])
    finally:
        line.close()
    return results[0]


def main() -> None:
    """Console command."""
    sys.argv = command_lines.rewritten(sys.argv)
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
