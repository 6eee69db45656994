"""Worker process of `plot_sensitivity`: statistics of the runs of a zoo, one after the other, by one function."""

from collections.abc import Callable
import pathlib

from heldout import devices
from heldout.datasets import dataset
from heldout.running import workers
from scripts.attribution import named_errors
from scripts.jacobian_stats import (
    sensitivity,
    sensitivity_files,
    stats_config,
    stats_run,
    stats_sources,
)
from zoo import layout


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Builds the module of the first run; returns the function that performs a task.

    A task is {"run": run id}; it answers with {"measured": run id}. A start is answered with a digest of the labels.
    """
    strategy = devices.strategy(setup["device"], num_threads=setup["num_threads"])
    config = sensitivity.SensitivityConfig.from_json(setup["config"])
    first = layout.Run(pathlib.Path(config.zoo), config.experiment, config.subset_ratio, config.run_ids[0])
    source_config = stats_config.SourceConfig(
        run=str(first.directory),
        dataset=config.dataset,
        data_dir=config.data_dir,
        architecture=config.architecture,
        outdir=config.outdir,
    )
    with named_errors.translated():
        source = stats_sources.load(source_config, strategy.scope)
        measurement = stats_run.Measurement(config.stats, source, None)
    split = source.split("all_train")
    positions = config.positions(len(split.ids))
    label_sha256 = dataset.label_sha256(split.label)

    def perform(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        run = layout.Run(first.zoo, first.experiment, first.subset_ratio, task["run"])
        path = sensitivity_files.run_path(config, run, positions)
        if sensitivity_files.read_run(path, len(positions), label_sha256) is None:
            with named_errors.translated():
                measured = measurement.measured(stats_sources.zoo_checkpoints(run)[-1], positions)
            sensitivity_files.write_run(path, *measured, label_sha256)
        send({"measured": run.run_id})

    return perform, {"train_label_sha256": label_sha256}


if __name__ == "__main__":
    workers.serve(start)
