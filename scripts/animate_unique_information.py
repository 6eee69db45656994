r"""Shows how informative points in the plane are while a network is trained on them: frames, and an animation of them.

    python -m scripts.animate_unique_information --dataset=gaussians --num_train=40 --num_val=200 \
        --label_noise=symmetric:1 --arch_options='{"hidden_sizes": [512]}' --learning_rate=0.01 --num_steps=10000 \
        --outdir=/tmp/animation

draws points of two normal distributions, one of them with the wrong label, takes the network that --seed draws, makes
it linear in its weights, and computes exactly what gradient descent on 1/2 |f - y|^2 has made of it after some steps,
with all points and without each of them. A point is informative as far as the network would be another one without it:
in its predictions of the validation points, or in its weights (--measure), in nats for noise of standard deviation 1.
Any data set whose examples are two numbers in two classes will do. It writes, under --outdir,

    animation.gif       frame after frame: points sized and coloured by --measure, and the boundary of the classes
    frames/*.png        each frame
    animation.npz       scores of the points and predictions on a grid, by step
    animation.json      settings, and the most informative points at the last step; written last

A healthy run ends with lines such as

    step 10000: 2 of 40 points on the wrong side of the boundary; most informative 441: 0.00989 nats, median 8.2e-05
    animation: /tmp/animation/animation.gif, 37 frames

The same command again does nothing; a folder of other settings is refused. The flags of the experiment are those of
ground_truth_effects and compute_unique_information, which say of the same points what retraining and other measures do.
"""

from collections.abc import Sequence
import dataclasses
import os
import pathlib
from typing import Any

from absl import flags
import numpy as np

from heldout.datasets import registry
from heldout.running import runners
from heldout.training import leave_out_data
from scripts import choices, cli, common_flags, terminal
from scripts.unique_information import experiment_flags, synthetic_config, synthetic_figure, synthetic_frames
from zoo import files

_SHARED_FLAGS = ("data_dir", "device", *experiment_flags.NAMES)
_WORKER = "scripts.unique_information.synthetic_worker"
_NUM_TOLD = 5

_MEASURE = flags.DEFINE_enum(
    "measure",
    synthetic_config.MEASURES[0],
    list(synthetic_config.MEASURES),
    "What points are sized and coloured by: how far predictions, or the weights, would be others without them.",
)
_NUM_FRAMES = flags.DEFINE_integer("num_frames", 40, "Frames, at steps in equal ratios.")
_GRID_SIZE = flags.DEFINE_integer("grid_size", 61, "Points along each side of the grid of predictions.")
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the animation.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> frames -> pictures."""
    del argv
    outdir = pathlib.Path(choices.required_path("outdir", _OUTDIR.value))
    config = synthetic_config.AnimationConfig(
        experiment_flags.config(), _MEASURE.value, _NUM_FRAMES.value, _GRID_SIZE.value
    )
    data_dir = choices.path(common_flags.DATA_DIR.value)
    terminal.quiet_tensorflow(config.experiment.dataset)
    data = leave_out_data.of_dataset(config.experiment, registry.load(config.experiment.dataset, data_dir))
    synthetic_frames.points(data)
    config = dataclasses.replace(
        config, experiment=dataclasses.replace(config.experiment, fingerprint=data.fingerprint())
    )
    is_there = synthetic_config.check_outdir(outdir, config)
    if not is_there:
        _make(outdir, config, data_dir)
    frames = synthetic_frames.read(outdir / synthetic_config.ARRAYS_NAME)
    _tell(frames, config.measure)
    done = " (was there, nothing to do)" if is_there else ""
    print(f"animation{done}: {outdir / synthetic_config.ANIMATION_NAME}, {files.count_text(len(frames.step), 'frame')}")
    return 0


def _make(outdir: pathlib.Path, config: synthetic_config.AnimationConfig, data_dir: str | None) -> None:
    outdir.mkdir(parents=True, exist_ok=True)
    path = outdir / synthetic_config.ARRAYS_NAME
    task = {
        "experiment": config.experiment.to_json(),
        "data_dir": data_dir,
        "steps": list(config.steps),
        "grid_size": config.grid_size,
        "path": os.path.abspath(path),
    }
    device = common_flags.DEVICE.value
    with runners.opened(runners.Runner(), device, 1) as opened:
        setup = {"device": device, "num_threads": opened.num_threads(1) if device == "cpu" else None}
        for _ in opened.run_tasks(_WORKER, setup, [task], num_workers=1):
            pass
    frames = synthetic_frames.read(path)
    pictures = synthetic_figure.draw(outdir / synthetic_config.FRAMES_NAME, frames, config.measure)
    synthetic_figure.animate(outdir / synthetic_config.ANIMATION_NAME, pictures)
    synthetic_config.write(outdir, config, _facts(frames, config.measure))


def _facts(frames: synthetic_frames.Frames, measure: str) -> dict[str, Any]:
    """The last frame in numbers."""
    score = getattr(frames, measure)[-1]
    most = np.argsort(-score, kind="stable")[:_NUM_TOLD]
    return {
        "last_step": int(frames.step[-1]),
        "most_informative": [
            {
                "train_index": int(frames.train_index[place]),
                "nats": float(score[place]),
                "is_changed": bool(frames.train_label[place] != frames.clean_train_label[place]),
            }
            for place in most
        ],
        "median_nats": float(np.median(score)),
        "relative_error_of_changes": float(frames.change_error),
    }


def _tell(frames: synthetic_frames.Frames, measure: str) -> None:
    facts = _facts(frames, measure)
    first = facts["most_informative"][0]
    changed = " (label changed)" if first["is_changed"] else ""
    wrong = int(np.sum((frames.train_prediction[-1] > 0.5) != frames.train_label))
    print(
        f"step {facts['last_step']}: {wrong} of {files.count_text(len(frames.train_label), 'point')} on the wrong side "
        f"of the boundary; most informative {first['train_index']}{changed}: {first['nats']:.3g} nats, median "
        f"{facts['median_nats']:.3g}"
    )


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
