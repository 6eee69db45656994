"""Worker process of `evaluate_zoo`: rebuilds runs and writes what they predict."""

from collections.abc import Callable
import pathlib

from heldout import devices
from heldout.datasets import registry as datasets
from heldout.evaluation import evaluation_files, rebuilding, run_sources
from heldout.running import workers
from zoo import errors, layout


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Builds the module of this process; returns the function that evaluates the runs of a task."""
    device = devices.configure(setup["device"], setup["num_threads"])
    workers.check_shared(pathlib.Path(setup["output"]) / evaluation_files.CONFIG_NAME)
    with device:
        data = datasets.open_saved(setup["dataset"])
        rebuilder = rebuilding.Rebuilder(run_sources.RunSource(**setup["source"]), data)
    zoo, output = pathlib.Path(setup["zoo"]), pathlib.Path(setup["output"])

    def evaluate(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        for run_id in task["run_ids"]:
            run = layout.Run(zoo, setup["experiment"], task["subset_ratio"], run_id)
            answer: workers.Message = {"run": [run.subset_ratio, run.run_id]}
            try:
                with device:
                    digest = evaluation_files.checkpoint_digest(run, setup["epoch"])
                    predictions = rebuilder.predict(run, setup["split"], setup["epoch"])
                parts = evaluation_files.Parts(predictions.correctness, predictions.recorded, predictions.in_subset)
                result = evaluation_files.summarise(run, parts, predictions.epoch, digest)
                evaluation_files.write(output, result, predictions.correctness, predictions.margin)
            except errors.HeldoutError as error:
                answer["fault"] = errors.explain(error)  # of this run alone
            send({"result": answer})

    return evaluate, {}


if __name__ == "__main__":
    workers.serve(start)
