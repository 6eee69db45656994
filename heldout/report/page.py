"""Assembles the one HTML page of a report from scores, charts, galleries and images.

The page is text in, text out: nothing is read from or written to the report's folder here. All values reach the
template escaped; only our own style sheet, script and charts are passed as markup.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from heldout.report import (
    dataset_view,
    drawing,
    figures,
    formats,
    galleries,
    images,
    influence_scan,
    panels,
    reliability_figures,
    selection,
    tables,
)
from heldout.scoring import reliability_files, saved_scores

if TYPE_CHECKING:
    import jinja2

TEMPLATES = pathlib.Path(__file__).parent / "templates"
_PICTURED_PAIRS = 200
# Images of examples that only panels show are embedded up to so many bytes: a page has to be loaded whole.
_PANEL_IMAGE_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True)
class PageOptions:
    """What can be chosen about a page.

    Attributes:
        title: heading of the page; None for the name of the experiment.
        num_gallery: examples among the most, and among the least memorized, per class.
        num_stories: test examples shown with the training examples that help and harm them.
        num_effects: training examples on either side of a story.
        pairs_influence: a pair is listed if the absolute value of its subset influence is at least this.
        pairs_memorization: and if the memorization of its training example is at least this.
        max_pairs: most rows of the table of pairs.
        max_examples: most rows of the table of training examples.
        num_panels: examples with a panel of their own, which tells whom they influence or who influences them.
    """

    title: str | None = None
    num_gallery: int = 12
    num_stories: int = 8
    num_effects: int = 5
    pairs_influence: float = 0.15
    pairs_memorization: float = 0.25
    max_pairs: int = 2000
    max_examples: int = 100_000
    num_panels: int = 2000


@dataclasses.dataclass(frozen=True)
class Page:
    """A finished page and the charts in it."""

    html: str
    charts: tuple[drawing.Chart, ...]


def build(
    saved: saved_scores.SavedScores,
    scores: saved_scores.RatioScores,
    view: dataset_view.DatasetView,
    options: PageOptions,
    reliable: reliability_files.SavedReliability | None = None,
) -> Page:
    """The whole page.

    Args:
        saved: the scores of an experiment.
        scores: the ratio to show, one of `saved.ratios`.
        view: labels, class names and images, as far as they are known.
        options: sizes and thresholds.
        reliable: how reliable the scores are; None where it was not computed.

    Returns:
        HTML that needs nothing but itself, and its charts.
    """
    scan = influence_scan.scan(
        scores,
        pairs_influence=options.pairs_influence,
        pairs_memorization=options.pairs_memorization,
        max_pairs=options.max_pairs,
    )
    labels = (view.train_label, view.test_label)
    num_classes = 0 if view.train_label is None else len(np.unique(view.train_label))
    per_side = galleries.cards_per_side(num_classes, options.num_gallery)
    shown = galleries.memorization_galleries(scores, view.train_label, per_side)
    stories = galleries.stories_of_tests(scores, scan, labels, options.num_stories, options.num_effects)
    roots = _shown(shown, stories, scan.pairs)
    panelled = panels.chosen(scores, roots, options.num_panels, options.num_effects)
    embedded, table = _embed(view, roots, panelled)
    columns = {
        "examples": tables.examples(
            scores, saved.consistency, view.train_label, options.max_examples, saved.clean_train_label
        ),
        "pairs": tables.pairs(scan.pairs, scores, labels),
    }
    linked = panels.payload(scores, saved.consistency, panelled, labels, options.num_effects)
    effects = [effect for story in stories for effect in (*story.helpful, *story.harmful)]
    largest = max((abs(effect.value) for effect in effects), default=1.0)
    charts = _charts(saved, scores, scan, reliable)
    context = {
        "saved": saved,
        "scores": scores,
        "scan": scan,
        "view": view,
        "options": options,
        "title": options.title or saved.experiment,
        "facts": _facts(saved, scores),
        "charts": {chart.name: chart.svg for chart in charts},
        "galleries": shown,
        "per_side": per_side,
        "stories": stories,
        "panels": linked,
        "reliable": reliable,
        "reliability": _reliability_facts(reliable, scores.subset_ratio),
        "changed": _changed(saved),
        "largest_effect": largest,
        "images": embedded,
        "num_stretched": table.num_stretched if table else 0,
        "image_rules": table.style_sheet() if table else "",
        "tables": {name: len(next(iter(rows.values()))) for name, rows in columns.items()},
        "payload": tables.payload(columns, view.class_names, embedded) | {"panels": linked, "largestEffect": largest},
    }
    return Page(environment(view.class_names).get_template("report.html.j2").render(context), charts)


def _charts(
    saved: saved_scores.SavedScores,
    scores: saved_scores.RatioScores,
    scan: influence_scan.InfluenceScan,
    reliable: reliability_files.SavedReliability | None,
) -> tuple[drawing.Chart, ...]:
    charts = [
        figures.memorization_histogram(scores),
        figures.accuracy_scatter(scores),
        figures.influence_bulk(scan),
        figures.influence_tails(scan),
        figures.consistency_histogram(saved.consistency),
    ]
    if figures.ratios_with_data(saved.consistency).size > 1:
        accuracy = () if reliable is None else reliable.heldout_accuracy
        charts.append(figures.consistency_by_ratio(saved.consistency, accuracy))
    if reliable is not None:
        charts += _reliability_charts(reliable, scores.subset_ratio)
    return tuple(charts)


def _reliability_charts(reliable: reliability_files.SavedReliability, subset_ratio: float) -> list[drawing.Chart]:
    charts = []
    for statistic in reliability_files.STATISTICS:
        curve = reliable.curve(statistic, None if statistic == "consistency" else subset_ratio)
        if curve is not None:
            charts.append(
                reliability_figures.split_half_reliability(
                    curve.reliability, num_all_runs=curve.num_all_runs, name=f"reliability_{statistic}"
                )
            )
    if subset_ratio in reliable.strongest:
        found = reliable.strongest[subset_ratio]
        charts.append(reliability_figures.strongest_found_again(found, name="reliability_strongest_pairs"))
    return charts


def _reliability_facts(
    reliable: reliability_files.SavedReliability | None, subset_ratio: float
) -> dict[str, dict[str, Any]]:
    """By statistic: runs of the largest halves, their correlation, its spread, and what is predicted of all runs."""
    facts: dict[str, dict[str, Any]] = {}
    if reliable is None:
        return facts
    for statistic in reliability_files.STATISTICS:
        curve = reliable.curve(statistic, None if statistic == "consistency" else subset_ratio)
        if curve is not None:
            last = curve.reliability.pearson[-1]
            facts[statistic] = {
                "num_runs": int(curve.reliability.num_runs[-1]),
                "num_all_runs": curve.num_all_runs,
                "num_ratios": curve.reliability.num_ratios,
                "correlation": float(last.mean()),
                "spread": float(last.std()),
                "of_all_runs": curve.of_all_runs,
                "num_examples": int(curve.reliability.num_examples[-1].mean()),
            }
    if (strongest := reliable.strongest.get(subset_ratio)) is not None:
        facts["strongest_pairs"] = {
            "num_pairs": int(strongest.num_pairs[-1].mean()),
            "chosen": float(strongest.chosen[-1].mean()),
            "again": float(strongest.again[-1].mean()),
            "found_again": float(strongest.found_again[-1].mean()),
        }
    return facts


def _changed(saved: saved_scores.SavedScores) -> dict[int, int]:
    """Clean labels of the training examples whose labels were changed on purpose, by index."""
    if saved.is_changed is None or saved.clean_train_label is None:
        return {}
    index = np.flatnonzero(saved.is_changed)
    return dict(zip(index.tolist(), saved.clean_train_label[index].tolist(), strict=True))


def _facts(saved: saved_scores.SavedScores, scores: saved_scores.RatioScores) -> dict[str, Any]:
    """Numbers that the prose of the template needs."""
    support, profile = scores.memorization, saved.consistency.profile
    defined = int((~np.isnan(support.values)).sum())
    with_data = figures.ratios_with_data(saved.consistency)
    only = profile[with_data[0]] if with_data.size == 1 else np.array([0.0])
    return {
        "num_train": support.values.size,
        "num_test": scores.test_accuracy.size,
        "num_defined": defined,
        "memorized_share": scores.memorized.count / defined if defined else float("nan"),
        "undefined": formats.undefined(support.num_in, support.num_heldout),
        "few_runs": formats.few_runs(scores.num_runs, support.num_in, support.num_heldout),
        "num_memorized_changed": 0
        if saved.is_changed is None
        else int((saved.is_changed & (support.values >= scores.memorized.threshold)).sum()),
        "num_certain": int((support.standard_error == 0).sum()),
        "median_in": int(np.median(support.num_in)),
        "median_heldout": int(np.median(support.num_heldout)),
        "ratios": [float(ratio) for ratio in saved.consistency.subset_ratios],
        "ratios_with_data": [float(saved.consistency.subset_ratios[row]) for row in with_data],
        "consistency_undefined": int(np.isnan(saved.consistency.score).sum()),
        "consistency_partial": int(np.isin(saved.consistency.num_ratios, range(1, with_data.size)).sum()),
        "profile_undefined": int(np.isnan(profile).any(axis=0).sum()),
        "only_ratio_mean": float(np.nanmean(only)),
        "only_ratio_quartiles": [float(value) for value in np.nanquantile(only, [0.25, 0.75])],
    }


def _shown(
    shown: Sequence[galleries.Gallery],
    stories: Sequence[galleries.Story],
    pairs: Sequence[influence_scan.Pair],
) -> list[panels.Key]:
    """Every example of the galleries and stories and of the first pairs, in this order, each once."""
    found = []
    for story in stories:
        found += [("test", story.test_index)]
        found += [("train", effect.train_index) for effect in (*story.helpful, *story.harmful)]
    found += [("train", card.train_index) for gallery in shown for card in (*gallery.most, *gallery.least)]
    for pair in pairs[:_PICTURED_PAIRS]:
        found += [("train", pair.train_index), ("test", pair.test_index)]
    return list(dict.fromkeys(found))


def _embed(
    view: dataset_view.DatasetView, roots: Sequence[panels.Key], panelled: Sequence[panels.Key]
) -> tuple[dict[str, str], images.ImageTable | None]:
    """Embeds the images that the page shows, then those of panels as far as there is room; "train-5" -> CSS class."""
    if view.dataset is None:
        return {}, None
    table = images.ImageTable(view.dataset.scale)
    splits = {"train": view.dataset.train.images, "test": view.dataset.test.images}
    embedded: dict[str, str] = {}
    for key in (*sorted(roots), *panelled):
        if table.num_bytes > _PANEL_IMAGE_BYTES and len(embedded) >= len(roots):
            break
        if panels.name(key) not in embedded:
            embedded[panels.name(key)] = table.add(splits[key[0]][key[1]])
    return embedded, table


def environment(class_names: Sequence[str] | None) -> "jinja2.Environment":
    """What templates are rendered with: everything escaped, our filters, style sheet and script.

    Args:
        class_names: by label; None where labels are shown as numbers.
    """
    import jinja2  # heavy, and needed by reports only
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def label_text(label: int | None) -> str:
        name = selection.class_name(label, class_names)
        return f"class {name}" if name.isdecimal() else name

    filters: Mapping[str, Any] = {
        "signed": formats.signed,
        "error": formats.error,
        "count": formats.count,
        "counted": formats.counted,
        "percent": formats.percent,
        "correlation": formats.correlation,
        "label_text": label_text,
        "markup": markupsafe.Markup,
    }
    environment.filters.update(filters)
    for name in ("report.css", "report.js"):
        environment.globals[name.replace(".", "_")] = markupsafe.Markup((TEMPLATES / name).read_text("utf-8"))
    return environment
