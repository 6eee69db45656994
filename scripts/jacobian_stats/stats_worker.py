"""Worker process of `compute_jacobian_stats`: shards of models, one after the other."""

from collections.abc import Callable

from heldout import devices
from heldout.running import workers
from scripts.attribution import named_errors
from scripts.jacobian_stats import stats_config, stats_files, stats_report, stats_run, stats_sources


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Returns the function that performs a task.

    A task is {"part": "k:i/n"}, the i-th of n shards of the model k; it answers with {"found": ...} for each table,
    see `stats_report.line`. A model is loaded when its first shard comes, and is kept until another one comes.
    """
    strategy = devices.strategy(setup["device"], num_threads=setup["num_threads"])
    config = stats_config.StatsConfig.from_json(setup["config"])
    sources = [stats_config.SourceConfig.from_json(one) for one in setup["sources"]]
    loaded: dict[int, stats_run.Measurement] = {}

    def load(number: int) -> stats_run.Measurement:
        if number not in loaded:
            loaded.clear()
            loaded[number] = _measurement(config, sources[number], strategy.scope)
        return loaded[number]

    def perform(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        number, _, shard = task["part"].partition(":")

        def advance(stage: str, done: int, total: int) -> None:
            send({"progress": [stage, done, total], "part": task["part"]})

        with named_errors.translated():
            for found in load(int(number)).run(stats_config.parse_shard(shard), advance):
                send({"found": stats_report.line(found.path, found.was_there, found.table, found.arrays)})

    return perform, {}


def _measurement(
    config: stats_config.StatsConfig, source_config: stats_config.SourceConfig, scope: stats_sources.Scope
) -> stats_run.Measurement:
    source = stats_sources.load(source_config, scope)
    folder = stats_files.folder_of(source_config, source.group, source.seed, source.home)
    return stats_run.Measurement(config, source, folder)


if __name__ == "__main__":
    workers.serve(start)
