"""Trains networks of many widths, amounts of label noise and seeds, and tabulates their errors.

    python -m scripts.train_sweep --model=conv5 --widths=1,2,4 --dataset=digits --label_noise=0,.1 --save_dir=/tmp/nets

trains the networks of `train_model`, each in its folder, and writes

    /tmp/nets/networks/sweep.csv      a row for each network: width, noise, seed, epochs, training and test error
    /tmp/nets/networks/sweep.png      test and training error against width
    /tmp/nets/networks/sweep.json     what was asked for

A healthy run prints a line for each network as it ends, and then lines such as

    conv5, noise none: no width fits all labels, lowest mean test error 0.0966 at width 4
    18 networks, 0 missing: /tmp/nets/networks/sweep.csv

The same command again goes on after a kill and skips what is there. Workers train widths and noises apart; the seeds
of one setting are trained side by side where that is quicker (--side_by_side), with the same results up to rounding.
--runner=ray trains on a Ray cluster whose machines share SAVE_DIR and the data. $SAVE_DIR, $NAME, $DATA_DIR, $DEVICE
and $WORKERS stand for flags that are not given. Networks whose loss is no number are named, and the status is 1.
"""

from collections.abc import Sequence
import math
import pathlib
import sys
from typing import Any

from absl import flags

from heldout.running import runners, workers
from heldout.training import model_files, model_settings
from scripts import choices, cli, common_flags, old_command_lines, runner_flags
from scripts.model_training import command_lines, dispatch, network_flags, progress, sweep_figure, sweep_table
from zoo import errors, files

_SHARED_FLAGS = ("dataset", "data_dir", "device", *network_flags.NAMES, *runner_flags.NAMES)

_MODEL = flags.DEFINE_list(
    "model",
    None,
    "Architectures, to which --widths are added: conv5, resnet18, resnet34, vgg11, vit, small_inception; one with a "
    "width of its own (conv5_16), or without any, is taken once as it is.",
)
_WIDTHS = flags.DEFINE_string("widths", "", "Widths of the architectures: 1,2,4,8.")
_LABEL_NOISE = flags.DEFINE_list(
    "label_noise",
    ["none"],
    "Label noises to train with, each as train_model takes it: none,0.1,0.2 or pair:0.1.",
)
_SEEDS = flags.DEFINE_string("seeds", "0:3", "Seeds of initial values and order: 0:3 (its end left out), or 0,1,5.")
_WORKERS = flags.DEFINE_integer(
    "workers",
    network_flags.default_workers(),
    "Worker processes; without it $WORKERS, else one for each core on a CPU, one on other devices, or all that a "
    "cluster holds.",
    lower_bound=1,
)
_SIDE_BY_SIDE = flags.DEFINE_string(
    "side_by_side",
    "auto",
    "Seeds of a setting to train as one batched computation, where the architecture has one. auto: by what a step "
    "costs and by memory; on a CPU only small networks gain.",
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Where table and picture go, without .csv and .png; without it SAVE_DIR/NAME/sweep."
)


def run(argv: Sequence[str]) -> int:
    """Flags -> networks -> training -> table. Status 1 if a network diverged or is missing."""
    del argv
    old_command_lines.check_environment()
    networks = _networks()
    how = _how()
    output = _output()
    runners.check(runner_flags.runner(), how.device)
    _adopt(output, _asked_for(networks))
    pending = networks
    if not how.overwrite:
        pending = [one for one in networks if model_files.finished_result(one.folder, one.settings) is None]
    try:
        _train(pending, len(networks), how)
    finally:
        table = sweep_table.rows(networks)
        sweep_table.write(output.with_name(f"{output.name}.csv"), table)
    num_seeds = len({network.settings.seed for network in networks})
    title = f"{networks[0].settings.data_name()}: mean and range of {files.count_text(num_seeds, 'seed')}"
    sweep_figure.draw(output.with_name(f"{output.name}.png"), table, title)
    return _say(table, output)


def _adopt(output: pathlib.Path, asked: dict[str, Any]) -> None:
    """Writes what is asked for; tables of networks that are all there can be made again, but not without a word."""
    path = output.with_name(f"{output.name}.json")
    if path.exists():
        try:
            before = files.read_json(path)
        except errors.DamagedFileError:
            before = {}
        for name in ("models", "label_noise", "seeds", "shared"):
            if before.get(name) != asked[name]:
                print(
                    f"note: {output}.csv was of another sweep ({name}) and is written anew; its own command, with "
                    "nothing to train, writes it again, and --output gives each sweep a table of its own",
                    file=sys.stderr,
                )
                break
    files.write_json(path, asked)


def _say(table: list[dict[str, Any]], output: pathlib.Path) -> int:
    print("\n".join(sweep_table.summary(table)))
    diverged = [line for line in table if line["outcome"] == model_files.DIVERGED]
    for line in diverged:
        print(f"diverged: {line['folder']}")
    missing = sum(line["outcome"] == "missing" for line in table)
    print(f"{files.count_text(len(table), 'network')}, {missing} missing: {output}.csv")
    return 1 if diverged or missing else 0


def _networks() -> list[sweep_table.Network]:
    models = choices.required_list("model", _MODEL.value)
    widths = command_lines.widths(_WIDTHS.value) if _WIDTHS.value else ()
    seeds = choices.run_ids(_SEEDS.value, "seeds", "seed")
    found = []
    for model in models:
        base, width = sweep_table.split_name(model)
        named = [(model, base, width)] if width or not widths else [(f"{model}_{w}", model, w) for w in widths]
        for name, of, of_width in named:
            for noise in _LABEL_NOISE.value:
                for seed in seeds:
                    settings = network_flags.settings(name, noise, seed)
                    folder = model_files.directory(network_flags.save_dir(), network_flags.NAME.value, settings)
                    found.append(sweep_table.Network(of, of_width, settings, folder))
    if len({network.folder for network in found}) < len(found):
        raise errors.InvalidValueError(
            f"--model={','.join(models)} --label_noise={','.join(_LABEL_NOISE.value)}: a network is named twice; name "
            "each model and noise once"
        )
    return found


def _how() -> dispatch.HowToTrain:
    side_by_side = choices.integer_or_auto("side_by_side", _SIDE_BY_SIDE.value)
    if side_by_side is not None and side_by_side < 1:
        raise errors.InvalidValueError(f"--side_by_side={side_by_side}: expected 1 or more, or auto")
    is_local = runner_flags.RUNNER.value == runners.LOCAL
    return dispatch.HowToTrain(
        data_dir=choices.path(common_flags.DATA_DIR.value),
        device=network_flags.device(),
        resume_minutes=network_flags.RESUME_MINUTES.value,
        tensorboard=network_flags.TENSORBOARD.value,
        overwrite=network_flags.OVERWRITE.value,
        side_by_side=side_by_side,
        seen_by_all=None if is_local else str(_output().with_name(f"{_output().name}.json").absolute()),
    )


def _output() -> pathlib.Path:
    if _OUTPUT.value is not None:
        return pathlib.Path(choices.required_path("output", _OUTPUT.value))
    return pathlib.Path(network_flags.save_dir()) / network_flags.NAME.value / "sweep"


def _asked_for(networks: list[sweep_table.Network]) -> dict[str, Any]:
    """What the sweep is of; also seen by workers on other machines."""
    shared = networks[0].settings.to_json()
    own = ("model", "label_noise", "seed", "fingerprint")
    return {
        "schema_version": 1,
        "models": list(dict.fromkeys(network.settings.architecture for network in networks)),
        "label_noise": list(dict.fromkeys(network.settings.noise_text() for network in networks)),
        "seeds": sorted({network.settings.seed for network in networks}),
        "shared": {name: value for name, value in shared.items() if name not in own},
    }


def _groups(pending: list[sweep_table.Network]) -> list[dispatch.Networks]:
    """A task for each setting, or for some of its seeds where these are few; the widest first, which take longest."""
    by_setting: dict[pathlib.Path, list[sweep_table.Network]] = {}
    for network in pending:
        by_setting.setdefault(network.folder.parent, []).append(network)
    wanted = _WORKERS.value or (workers.num_cores() if network_flags.device() == "cpu" else 1)
    groups = []
    for networks in sorted(by_setting.values(), key=lambda networks: -(networks[0].width or 0)):
        parts = max(1, min(len(networks), math.ceil(wanted / len(by_setting))))
        size = math.ceil(len(networks) / parts)
        for first in range(0, len(networks), size):
            chosen = networks[first : first + size]
            folders = {network.settings.seed: network.folder for network in chosen}
            groups.append(dispatch.Networks(chosen[0].settings, folders))
    return groups


def _train(pending: list[sweep_table.Network], num_networks: int, how: dispatch.HowToTrain) -> None:
    line = progress.Line(sys.stderr if network_flags.PROGRESS.value else None)
    groups = _groups(pending)
    if pending and len(pending) < num_networks:
        line.note(f"{num_networks - len(pending)} of {files.count_text(num_networks, 'network')} are there")
    done = num_networks - len(pending)
    try:
        for message in dispatch.train(how, groups, runner_flags.runner(), _WORKERS.value):
            if "note" in message:
                line.note(message["note"])
            elif "progress" in message:
                told = message["progress"]
                name = _name(groups[told["task"]].settings)
                line.show(f"{done} of {num_networks} networks done; {name} {progress.epoch_text(told)}")
            for network in message.get("results", []):
                done += 1
                settings = groups[network["task"]].settings
                line.note(f"{_name(settings)} seed {network['seed']}: {progress.result_text(network)}")
    finally:
        line.close()


def _name(settings: model_settings.ModelSettings) -> str:
    return f"{settings.architecture} noise {settings.noise_text()}"


def main() -> None:
    """Console command."""
    sys.argv = command_lines.rewritten(sys.argv)
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
