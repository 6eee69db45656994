r"""Trains a network again without each of some examples: the truth that scores of unique information approximate.

    python -m scripts.ground_truth_effects --dataset=digits --classes=3,8 --num_train=60 --num_val=60 \
        --learning_rate=0.1 --num_steps=200 --which=0:10 --outdir=/tmp/truth

draws --num_train training and --num_val validation examples of --classes from the data set, trains a network on them by
full-batch gradient descent on 1/2 |f - y|^2 (two classes are one output, regressed on 0 and 1; inputs in [0, 1]), and
then from the same initialisation once more for each example, or group, of --which, without it. What is left counts with
its own mean. Many small networks are one batched computation. --which is

    all, 0:60 or 3,7    the drawn examples, or some by their place among them, each alone
    random:60           60 of them
    stratified:60       one of each of 60 equal parts of them in the order of a score: --scores=FILE --column=NAME
    PATH                a file with a group a line, of positions in the training split; or an npz file with train_index

It writes, under --outdir,

    ground_truth.npz    per group the squared change of weights and of validation predictions, the change of each of
                        them, and the change of the prediction for itself; a change is deleted minus full
    full_run.npz        data, labels, predictions and losses of the full network; with --record_steps along its training
    checkpoints/        step-0 and the last step of the full network, each a tf.train.Checkpoint
    config.json         everything that decides the networks; blocks/ holds what a killed run goes on from

A healthy run ends with lines such as

    full network: loss 0.00412 on 60 training, 0.01146 on 60 validation examples
    10 groups left out: root mean square change of predictions 0.00807 (median), 0.00207 to 0.0181
    ground truth: /tmp/truth/ground_truth.npz

The same command again continues after a kill, and does nothing when all is there; another --which adds to it. A
training that diverges ends with status 1. Next: aggregate_ground_truth, to compare with scores.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import os
import pathlib
import re
import sys

from absl import flags
import numpy as np

from heldout.datasets import registry
from heldout.running import runners
from heldout.training import leave_out_config, leave_out_data, leave_out_draw, leave_out_files
from scripts import choices, cli, common_flags, runner_flags, terminal
from scripts.model_training import command_lines, progress
from scripts.unique_information import left_out_groups, score_columns, truth_dispatch
from zoo import errors, files, layout, stores

_SHARED_FLAGS = ("dataset", "data_dir", "device", *runner_flags.NAMES)

_CLASSES = flags.DEFINE_list(
    "classes", [], "Labels to keep, such as 4,9; the first of two is regressed on 0, the second on 1. Without it all."
)
_NUM_TRAIN = flags.DEFINE_integer("num_train", 1000, "Training examples to draw.")
_NUM_VAL = flags.DEFINE_integer("num_val", 1000, "Validation examples to draw.")
_DATA_SEED = flags.DEFINE_integer("data_seed", 0, "Seed of this draw; and of the choices of --which.")
_VAL_SPLIT = flags.DEFINE_enum(
    "val_split",
    "train",
    leave_out_draw.VAL_SPLITS,
    "Where validation examples are drawn: beside the training examples, or test.",
)
_LABEL_NOISE = flags.DEFINE_string(
    "label_noise",
    "none",
    "Labels of drawn training examples to change: a share like 0.1 (symmetric), or a kind with a share or a number, as "
    "in pair:30.",
)
_LABEL_SEED = flags.DEFINE_integer("label_seed", 0, "Seed of the changed labels; nothing else depends on it.")
_ARCH = flags.DEFINE_string(
    "arch", "mlp", "Architecture: mlp, lenet, conv5_16, vgg11_16 and others of train_runs, or module:callable."
)
_ARCH_OPTIONS = flags.DEFINE_string(
    "arch_options", "{}", 'Its options as JSON, such as {"hidden_sizes": [1024]} for mlp.'
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the initialisation, which all networks share.")
_INIT_CHECKPOINT = flags.DEFINE_string(
    "init_checkpoint", None, "Prefix of a checkpoint of this architecture to begin with, instead of --seed."
)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Step of gradient descent on the mean loss.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 2000, "Steps, each over all examples.")
_L2 = flags.DEFINE_float("l2", 0.0, "Weight of 1/2 |w - w0|^2, the squared distance to the initialisation.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", leave_out_config.DTYPES, "Type of weights and inputs.")
_RECORD_STEPS = flags.DEFINE_list(
    "record_steps", [], "Steps after which predictions of the full network are kept: 0,10,100 or every:100."
)
_WHICH = flags.DEFINE_string("which", "all", "What is left out: all, 0:60, random:60, stratified:60, or a file.")
_SCORES = flags.DEFINE_string("scores", None, "Scores for stratified: npz, Parquet or CSV with train_index.")
_COLUMN = flags.DEFINE_string("column", None, "Column of the scores, where there are several.")
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the experiment.")
_WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "Worker processes; without it one for each core on a CPU, else one, or all that a cluster holds.",
    1,
)
_RUNS_PER_GROUP = flags.DEFINE_string(
    "runs_per_group",
    "auto",
    "Networks that a worker trains as one batched computation; auto is what size, device and memory suggest, and 1 "
    "where an architecture has no batched form.",
)
_PROGRESS = flags.DEFINE_bool("progress", True, "Tell on the error stream how far it is.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> trainings -> ground_truth.npz."""
    del argv
    outdir = choices.required_path("outdir", _OUTDIR.value)
    if stores.is_store(outdir):
        raise errors.InvalidValueError(f"--outdir={outdir}: expected a folder; copy it when all is trained")
    config, how = _config(), _how()
    runners.check(how.runner, how.device)
    scores = _scores()
    terminal.quiet_tensorflow(config.dataset)
    data = leave_out_data.of_dataset(config, registry.load(config.dataset, how.data_dir))
    score = None if scores is None else _score_at(scores, data.train_index)
    groups = left_out_groups.parse(_WHICH.value, data.train_index, config.data_seed, score)
    config = dataclasses.replace(config, fingerprint=data.fingerprint())
    leave_out_config.adopt(outdir, config)
    trained = _train(config, outdir, groups, how)
    return _finish(pathlib.Path(outdir), config, groups, trained)


def _config() -> leave_out_config.LeaveOutConfig:
    init = choices.path(_INIT_CHECKPOINT.value)
    return leave_out_config.LeaveOutConfig(
        dataset=choices.required("dataset", choices.dataset(common_flags.DATASET.value)),
        classes=choices.integers("classes", _CLASSES.value),
        num_train=_NUM_TRAIN.value,
        num_val=_NUM_VAL.value,
        data_seed=_DATA_SEED.value,
        val_split=_VAL_SPLIT.value,
        noise=command_lines.noise(_LABEL_NOISE.value, _LABEL_SEED.value, {}),
        architecture=_ARCH.value,
        architecture_options=choices.json_object("arch_options", _ARCH_OPTIONS.value),
        seed=_SEED.value,
        init_checkpoint=None if init is None else os.path.abspath(init),
        init_sha256=None if init is None else _digest(init),
        learning_rate=_LEARNING_RATE.value,
        num_steps=_NUM_STEPS.value,
        l2=_L2.value,
        dtype=_DTYPE.value,
        record_steps=_record_steps(_RECORD_STEPS.value, _NUM_STEPS.value),
    )


def _how() -> truth_dispatch.HowToTrain:
    size = choices.integer_or_auto("runs_per_group", _RUNS_PER_GROUP.value)
    if size is not None and size < 1:
        raise errors.InvalidValueError(f"--runs_per_group={size}: expected at least 1, or auto")
    return truth_dispatch.HowToTrain(
        data_dir=choices.path(common_flags.DATA_DIR.value),
        device=common_flags.DEVICE.value,
        runs_per_group=size,
        runner=runner_flags.runner(),
        num_workers=_WORKERS.value,
    )


def _digest(prefix: str) -> str:
    path = f"{prefix}{layout.CHECKPOINT_DATA_SUFFIX}"
    if not os.path.isfile(path):
        raise errors.MissingFileError(
            f"--init_checkpoint={prefix}: {path} is not there; give what its files begin with"
        )
    return files.sha256_of_file(path)


def _record_steps(parts: list[str], num_steps: int) -> tuple[int, ...]:
    found: set[int] = set()
    for part in parts:
        match = re.fullmatch("every:([1-9][0-9]{0,8})", part.strip())
        found |= set(range(0, num_steps + 1, int(match[1]))) if match else set(choices.integers("record_steps", [part]))
    return tuple(sorted(found))


def _scores() -> score_columns.ScoreColumns | None:
    path = choices.path(_SCORES.value)
    if path is None and _COLUMN.value is not None:
        raise errors.InvalidValueError(f"--column={_COLUMN.value}: names a column of --scores, which are not given")
    return None if path is None else score_columns.read(path)


def _score_at(scores: score_columns.ScoreColumns, train_index: np.ndarray) -> np.ndarray:
    value = scores.column(_COLUMN.value)
    return dataclasses.replace(scores, columns={"score": value}).at(train_index)["score"]


def _train(
    config: leave_out_config.LeaveOutConfig,
    outdir: str,
    groups: Sequence[leave_out_files.Group],
    how: truth_dispatch.HowToTrain,
) -> bool:
    """Whether there was something to train."""
    pending = truth_dispatch.pending_groups(outdir, config.sha256, groups)
    if not pending and leave_out_files.read_full_run(outdir, config.sha256) is not None:
        return False
    line = progress.Line(sys.stderr if _PROGRESS.value else None)
    try:
        with contextlib.closing(truth_dispatch.compute(config, outdir, groups, how)) as messages:
            for message in messages:
                if "note" in message:
                    line.note(message["note"])
                elif "progress" in message:
                    steps, total = message["progress"]
                    line.show(_text(message["task"], len(pending), len(groups), f"step {steps} of {total}"))
    finally:
        line.close()
    return True


def _text(task: str | int, pending: int, num_groups: int, at: str) -> str:
    if task == "full":
        return f"full network: {at}"
    before = num_groups - pending + int(task)
    return f"{before} of {files.count_text(num_groups, 'group')} begun or done, {at}"


def _finish(
    outdir: pathlib.Path,
    config: leave_out_config.LeaveOutConfig,
    groups: Sequence[leave_out_files.Group],
    trained: bool,
) -> int:
    full_run = leave_out_files.read_full_run(outdir, config.sha256)
    assert full_run is not None
    path = outdir / leave_out_files.GROUND_TRUTH_NAME
    if trained or not path.exists():
        found = leave_out_files.joined(leave_out_files.read_blocks(outdir, config.sha256))
        leave_out_files.write_ground_truth(outdir, found, full_run, config.sha256)
    effects = leave_out_files.read_ground_truth(outdir)
    print(
        f"full network: loss {full_run['train_loss']:.4g} on {len(full_run['train_index'])} training, "
        f"{full_run['val_loss']:.4g} on {len(full_run['val_index'])} validation examples"
    )
    size = np.sqrt(effects.squared_prediction_change)
    more = len(effects.groups) - len(groups)
    earlier = f" ({more} of earlier calls)" if more else ""
    print(
        f"{files.count_text(len(effects.groups), 'group')} left out{earlier}: root mean square change of predictions "
        f"{np.median(size):.3g} (median), {size.min():.3g} to {size.max():.3g}"
    )
    print(f"ground truth{'' if trained else ' (was there, nothing to do)'}: {path}")
    cli.say_next("aggregate_ground_truth", f"--ground_truth={outdir}", "--scores=FILE", f"--outdir={outdir}/agreement")
    return 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
