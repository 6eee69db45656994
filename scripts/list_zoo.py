"""Lists what a zoo holds: experiments, ratios, runs, and which of them are complete, partial or damaged, and why.

    python -m scripts.list_zoo --zoo=/tmp/zoo

A healthy zoo prints, and ends with status 0,

    digits-mlp: 1438 training and 359 test examples, 400 runs packed in run_table.npz
      ratio   complete   with checkpoint   partial   damaged
      0.7          400               400         0         0

Nothing is written. Partial runs have no aux_arrays.npz yet; the command that trains them finishes them. Runs of which
there is only a row in the run table, as zoo_stream keeps them, count as complete; how many these are is said. So is how
far a pass over an archive got that has not come to its end. Runs that failed are named with the command that trains
each again. Damaged runs are named with the reason, and the status is then 3. While runs are being trained, zoo_status
tells more.
"""

from collections.abc import Sequence
import dataclasses
import json
from typing import Any

from absl import flags

from heldout.training import failures
from scripts import choices, cli, common_flags, training_texts, transfer_bar
from zoo import errors, files, inventory, layout
from zoo.archive import unfinished

_SHARED_FLAGS = ("zoo", "experiment")

_DEEP = flags.DEFINE_bool("deep", False, "Read every record again, also those that run_table.npz knows unchanged.")
_FORMAT = flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.")
_MAX_PROBLEMS = flags.DEFINE_integer(
    "max_problems",
    20,
    "Partial and damaged runs to name for each experiment, failed ones, and names that are no part of it.",
    lower_bound=0,
)


def run(argv: Sequence[str]) -> int:
    """Flags -> inventory -> text or JSON. Status 3 if anything is damaged."""
    del argv
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    names = _names(zoo, common_flags.EXPERIMENT.value)
    found = [(_take(zoo, name), unfinished.of_experiment(zoo, name), *_failed(zoo, name)) for name in names]
    if _FORMAT.value == "json":
        print(json.dumps([_as_json(*parts) for parts in found], indent=2))
    else:
        print("\n\n".join(_as_text(*parts) for parts in found))
    damaged = any(
        item.complaint or failed_complaint or any(ratio.count("damaged") for ratio in item.ratios)
        for item, _, _, failed_complaint in found
    )
    return cli.DAMAGED_STATUS if damaged else 0


def _names(zoo: str, name: str | None) -> list[str]:
    """The experiments to list, among them those of which there is no more than an unfinished pass."""
    there = sorted({*layout.experiments(zoo), *unfinished.experiments(zoo)})
    if name is None and there:
        return there
    return [name] if name is not None and name in there else [choices.experiment(zoo, name)]


def _take(zoo: str, experiment: str) -> inventory.ExperimentInventory:
    with transfer_bar.shown(experiment, "run") as progress:
        return inventory.take(zoo, experiment, deep=_DEEP.value, progress=progress)


def _failed(zoo: str, experiment: str) -> tuple[list[failures.Failure], str | None]:
    """The failed runs, and what is wrong with the file that names them."""
    try:
        return failures.current(zoo, experiment), None
    except (errors.HeldoutError, OSError) as error:
        return [], errors.explain(error)


def _as_text(
    item: inventory.ExperimentInventory,
    begun: unfinished.UnfinishedPass | None,
    failed: list[failures.Failure],
    failed_complaint: str | None,
) -> str:
    sizes = "no complete run"
    if item.num_train is not None:
        sizes = f"{item.num_train} training and {item.num_test} test examples"
    lines = [f"{item.experiment}: {sizes}, {_packed(item)}"]
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
    lines += [f"  {training_texts.failure(each)}" for each in failed[: _MAX_PROBLEMS.value]]
    if len(failed) > _MAX_PROBLEMS.value:
        lines.append(f"  and {files.count_text(len(failed) - _MAX_PROBLEMS.value, 'more failed run')}")
    lines += [f"  damaged: {complaint}" for complaint in (item.complaint, failed_complaint) if complaint]
    if item.unknown:
        more = len(item.unknown) - _MAX_PROBLEMS.value
        shown = [*item.unknown[: _MAX_PROBLEMS.value], *([f"and {more} more"] if more > 0 else [])]
        lines.append(f"  not part of a zoo: {', '.join(shown)}")
    if begun is not None:
        lines.append(f"  {_unfinished(begun)}; the same zoo_stream command continues")
    return "\n".join(lines)


def _packed(item: inventory.ExperimentInventory) -> str:
    if item.num_packed is None:
        return "no run table"
    alone = f", {item.num_table_only} of them without a folder" if item.num_table_only else ""
    return f"{files.count_text(item.num_packed, 'run')} packed in run_table.npz{alone}"


def _unfinished(begun: unfinished.UnfinishedPass) -> str:
    if begun.num_done is None or begun.num_bytes is None:
        return f"unfinished pass over an archive: {begun.path}, which does not tell how far it got"
    done, total = files.size_text(begun.num_done), files.size_text(begun.num_bytes)
    return f"unfinished pass over {begun.archive}: {done} of {total} read"


def _as_json(
    item: inventory.ExperimentInventory,
    begun: unfinished.UnfinishedPass | None,
    failed: list[failures.Failure],
    failed_complaint: str | None,
) -> dict[str, Any]:
    return {
        "experiment": item.experiment,
        "num_train": item.num_train,
        "num_test": item.num_test,
        "num_packed": item.num_packed,
        "num_table_only": item.num_table_only,
        "complaint": "; ".join(text for text in (item.complaint, failed_complaint) if text) or None,
        "unknown": item.unknown,
        "failures": [each.to_json() for each in failed],
        "unfinished_pass": None if begun is None else dataclasses.asdict(begun) | {"path": str(begun.path)},
        "ratios": [
            {
                "subset_ratio": ratio.subset_ratio,
                "complete": ratio.num_complete,
                "with_checkpoint": ratio.num_with_checkpoint,
                "table_only": ratio.num_table_only,
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
