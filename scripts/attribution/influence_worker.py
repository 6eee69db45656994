"""Worker process of `compute_influence_functions`: all of a computation, or its parts on the machines of a cluster."""

from collections.abc import Callable
from typing import Any

from heldout import devices
from heldout.running import workers
from scripts.attribution import (
    influence_config,
    influence_results,
    influence_run,
    model_sources,
    named_errors,
    source_config,
)


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Loads the model; returns the function that performs a task.

    Tasks are {"do": "prepare"}, which answers with the starts of the blocks; {"do": "block", "start": of one of them};
    and {"do": "finish"}, which does all that is not done yet.
    """
    strategy = devices.strategy(setup["device"], num_threads=setup["num_threads"])
    config = influence_config.InfluenceConfig.from_json(setup["config"])
    if "seen_by_all" in setup:
        workers.check_shared(setup["seen_by_all"], "outdir")
    with named_errors.translated():
        model = model_sources.load(source_config.SourceConfig.from_json(setup["source"]), strategy.scope)
        computation = influence_run.Computation(config, model)

    def perform(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        def advance(stage: str, done: int, total: int) -> None:
            send({"progress": [stage, done, total]})

        with named_errors.translated():
            _perform(computation, task, advance, send)

    return perform, {"description": _description(computation)}


def _perform(
    computation: influence_run.Computation,
    task: workers.Message,
    advance: influence_run.Progress,
    send: Callable[[workers.Message], None],
) -> None:
    if task["do"] == "prepare":
        if not computation.up_to_date:
            computation.prepare(advance)
        is_left = not computation.up_to_date and not computation.has_matrix
        send({"starts": list(computation.starts) if is_left else []})
    elif task["do"] == "block":
        computation.prepare(advance)
        send({"block": computation.compute_block(task["start"])})
    else:
        was_there = computation.up_to_date
        matrix = influence_run.run(computation, advance)
        summary = influence_results.summary(computation.config, computation.model, computation.test, matrix)
        send({"finished": summary | {"up_to_date": was_there}})


def _description(computation: influence_run.Computation) -> dict[str, Any]:
    """What is computed, for people."""
    return {
        "num_train": len(computation.model.train),
        "num_test": len(computation.test),
        "num_parameters": computation.model.target.num_parameters,
        "model": computation.model.description["model"],
    }


if __name__ == "__main__":
    workers.serve(start)
