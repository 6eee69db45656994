"""Merges zoos of one experiment that were trained apart into one run table, for the programs that score it.

    python -m scripts.merge_zoos --source=/tmp/zoo_a --source=/tmp/zoo_b --zoo=/tmp/zoo

reads recipe and run table of the experiment in every source, and writes, in about as many bytes as the tables have,

    /tmp/zoo/digits-mlp/recipe.json      which all sources must share
    /tmp/zoo/digits-mlp/run_table.npz    the runs of all sources, and those that /tmp/zoo had before

Run folders stay where they are: the scores need none. They are, to the last bit, those of a zoo in which all runs were
trained. A run that several sources have must be the same in all of them; one that is not finished is named and left
out. It ends with a line such as

    80 runs of digits-mlp, 40 of them new: /tmp/zoo/digits-mlp/run_table.npz

Next: compute_scores --zoo=/tmp/zoo
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from heldout.experiments import recipes
from scripts import choices, cli, common_flags
from zoo import errors, files, layout, run_table, run_table_merge, run_table_update

_SHARED_FLAGS = ("zoo", "experiment")

_SOURCE = flags.DEFINE_multi_string("source", None, "Zoo to take runs from; name each.")


def _table(zoo: str, experiment: str) -> run_table.RunTable:
    """The run table of a source, up to date; damaged runs are refused, as what is merged should be sound, others named.

    Raises:
        DamagedFileError: the experiment has damaged runs.
        MissingFileError: it has no finished run.
    """
    table, problems = run_table_update.update(zoo, experiment)
    for problem in problems:
        if problem.state == "damaged":
            raise errors.DamagedFileError(
                f"{problem.run.directory}: {problem.reason}; train it again with --redo_damaged, or delete the folder"
            )
        print(f"left out, {problem.state}: {problem.reason}")
    return table


def _check_recipes(zoos: Sequence[str], experiment: str) -> recipes.Recipe | None:
    found = {zoo: recipes.read(zoo, experiment) for zoo in zoos}
    first = found[zoos[0]]
    for zoo, recipe in found.items():
        if recipe != first:
            raise errors.MismatchError(
                f"{layout.recipe_path(zoo, experiment)} is not {layout.recipe_path(zoos[0], experiment)}: runs of "
                f"different recipes are never pooled; leave one of the sources out{_difference(first, recipe)}"
            )
    return first


def _difference(first: recipes.Recipe | None, other: recipes.Recipe | None) -> str:
    if first is None or other is None:
        return ": one has no recipe.json"
    return f". They differ in\n{recipes.differences(first, other)}"


def run(argv: Sequence[str]) -> int:
    """Flags -> tables -> one table."""
    del argv
    zoo = choices.required_path("zoo", common_flags.ZOO.value)
    if not _SOURCE.value:
        raise errors.InvalidValueError("--source: name at least one zoo to take runs from")
    sources = [choices.required_path("source", source) for source in _SOURCE.value]
    experiment = choices.experiment(sources[0], common_flags.EXPERIMENT.value)
    target = layout.run_table_path(zoo, experiment)
    has_runs = target.exists() or bool(layout.runs(zoo, experiment))
    zoos = [zoo, *sources] if has_runs else sources
    tables = [_table(one, experiment) for one in zoos]
    recipe = _check_recipes(zoos, experiment)
    whole = run_table_merge.merged(tables, zoos)
    if recipe is not None:
        recipes.adopt(zoo, recipe)
    _copy_what_runs_follow(sources[0], zoo, experiment)
    run_table.write(target, whole)
    num_new = whole.num_runs - (tables[0].num_runs if has_runs else 0)
    print(f"{files.count_text(whole.num_runs, 'run')} of {experiment}, {num_new} of them new: {target}")
    cli.say_next("compute_scores", f"--zoo={zoo}")
    return 0


def _copy_what_runs_follow(source: str, zoo: str, experiment: str) -> None:
    """The labels that the runs were trained with, where they are not those of the data set, and the ranking of subsets
    that follow one.
    """
    for place in (layout.labels_path, layout.ranking_path):
        path, target = place(source, experiment), place(zoo, experiment)
        if path.exists() and not target.exists():
            with files.write_whole(target) as temporary:
                pathlib.Path(temporary).write_bytes(path.read_bytes())


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
