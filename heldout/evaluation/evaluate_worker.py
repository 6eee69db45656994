"""Worker process of `evaluate_run`: rebuilds runs and compares their predictions with their records."""

from collections.abc import Callable

from heldout import devices
from heldout.evaluation import run_evaluation
from heldout.running import workers
from zoo import layout


def start(setup: workers.Message) -> tuple[workers.Perform, workers.Message]:
    """Returns the function that evaluates one run; a task names its folder and the options of `evaluate`."""
    device = devices.configure(setup["device"])

    def evaluate(task: workers.Message, send: Callable[[workers.Message], None]) -> None:
        with device:
            result = run_evaluation.evaluate(layout.run_from_directory(task["run"]), **task["options"])
        send({"evaluation": result.to_json()})

    return evaluate, {}


if __name__ == "__main__":
    workers.serve(start)
