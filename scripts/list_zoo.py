"""Lists what a zoo holds: experiments, ratios, runs, and which of them are complete, partial or damaged, and why.

    python -m scripts.list_zoo --zoo=/tmp/zoo

A healthy zoo prints, and ends with status 0,

    digits-mlp: 1438 training and 359 test examples, 400 runs packed in run_table.npz
      ratio   complete   with checkpoint   partial   damaged
      0.7          400               400         0         0

Nothing is written. Partial runs have no aux_arrays.npz yet; the command that trains them finishes them. Damaged runs
are named with the reason, and the status is then 1.
"""

from collections.abc import Sequence
import json
from typing import Any

from absl import flags
import tqdm

from scripts import choices, cli, common_flags
from zoo import inventory, layout

_SHARED_FLAGS = ("zoo", "experiment")

_DEEP = flags.DEFINE_bool("deep", False, "Read every record again, also those that run_table.npz knows unchanged.")
_FORMAT = flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.")
_MAX_PROBLEMS = flags.DEFINE_integer("max_problems", 20, "Partial and damaged runs to name for each experiment.")


def run(argv: Sequence[str]) -> int:
    """Flags -> inventory -> text or JSON. Status 1 if anything is damaged."""
    del argv
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    name = common_flags.EXPERIMENT.value
    names = [choices.experiment(zoo, name)] if name or not layout.experiments(zoo) else layout.experiments(zoo)
    inventories = [_take(zoo, name) for name in names]
    if _FORMAT.value == "json":
        print(json.dumps([_as_json(item) for item in inventories], indent=2))
    elif inventories:
        print("\n\n".join(_as_text(item) for item in inventories))
    else:
        print(f"{zoo}: no experiments; train one with train_runs --zoo={zoo}")
    damaged = any(item.complaint or any(ratio.count("damaged") for ratio in item.ratios) for item in inventories)
    return 1 if damaged else 0


def _take(zoo: str, experiment: str) -> inventory.ExperimentInventory:
    with tqdm.tqdm(desc=experiment, unit="run", delay=1, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return inventory.take(zoo, experiment, deep=_DEEP.value, progress=advance)


def _as_text(item: inventory.ExperimentInventory) -> str:
    sizes = "no complete run"
    if item.num_train is not None:
        sizes = f"{item.num_train} training and {item.num_test} test examples"
    packed = "no run table" if item.num_packed is None else f"{item.num_packed} runs packed in run_table.npz"
    lines = [f"{item.experiment}: {sizes}, {packed}"]
    if item.ratios:
        lines.append("  ratio   complete   with checkpoint   partial   damaged")
    for ratio in item.ratios:
        counts = f"{ratio.num_complete:>8}   {ratio.num_with_checkpoint:>15}"
        lines.append(
            f"  {layout.ratio_name(ratio.subset_ratio):<5}   {counts}   {ratio.count('partial'):>7}   "
            f"{ratio.count('damaged'):>7}"
        )
    problems = [problem for ratio in item.ratios for problem in ratio.problems]
    lines += [f"  {problem.state}: {problem.reason}" for problem in problems[: _MAX_PROBLEMS.value]]
    if len(problems) > _MAX_PROBLEMS.value:
        lines.append(f"  and {len(problems) - _MAX_PROBLEMS.value} more: --max_problems={len(problems)} names them all")
    if item.complaint:
        lines.append(f"  damaged: {item.complaint}")
    if item.unknown:
        lines.append(f"  not part of a zoo: {', '.join(item.unknown)}")
    return "\n".join(lines)


def _as_json(item: inventory.ExperimentInventory) -> dict[str, Any]:
    return {
        "experiment": item.experiment,
        "num_train": item.num_train,
        "num_test": item.num_test,
        "num_packed": item.num_packed,
        "complaint": item.complaint,
        "unknown": item.unknown,
        "ratios": [
            {
                "subset_ratio": ratio.subset_ratio,
                "complete": ratio.num_complete,
                "with_checkpoint": ratio.num_with_checkpoint,
                "partial": ratio.count("partial"),
                "damaged": ratio.count("damaged"),
                "problems": [
                    {"run_id": problem.run.run_id, "state": problem.state, "reason": problem.reason}
                    for problem in ratio.problems
                ],
            }
            for ratio in item.ratios
        ],
    }


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
