"""An evaluation, the mean of several (Tables 1 and 2) and a comparison, for the terminal; all fit 80 columns."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Column, Table

from csvi.data import find_layout
from csvi.evaluate.scoring import CameraPair, Result, Spread
from csvi.plain_table import plain_console, plain_table
from csvi.runs.evaluation import Evaluation, MaskResult
from csvi.runs.statistics import FEWEST, Comparison, Difference, Mean, Summary

MOST_CAMERAS = 9
"""Gallery cameras that fit beside each other."""
NOT_COMPARED = ("R10", "R20")
"""Metrics that are not shown side by side, for want of room."""
WITHOUT_DIFFERENCE = "mINP"
"""The metric that is shown side by side without its difference, for want of room."""
SYNTHETIC = "Synthetic data: these metrics say nothing about SYSU-MM01, RegDB or LLCM."


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the protocols, the pairs of cameras, and the masks where there are any."""
    console = plain_console()
    console.print()
    _print_title(console, evaluation)
    console.print(f"{evaluation.model}" + _fold(evaluation))
    if evaluation.synthetic:
        console.print(SYNTHETIC)
    if evaluation.unfinished:
        console.print(f"Its training had not ended: {evaluation.unfinished}.", style="yellow")
    first = evaluation.protocols[0]
    for refinement in first.refinements:
        console.print(f"With {refinement}, which the protocol does not do.", style="yellow")
    console.print(protocol_table(evaluation.protocols))
    for result in evaluation.protocols:
        if result.valid < result.queries:
            counted = f"{result.valid:,} of {result.queries:,} queries have an image to find, the others do not count"
            console.print(f"{_short(result.protocol)}: {counted}")
    if evaluation.camera_pairs:
        console.print(f"\nCamera by camera, {first.protocol} (%)")
        console.print(camera_table(evaluation.camera_pairs, evaluation.name_of_camera, console.width))
    if evaluation.masks:
        console.print(mask_table(evaluation.masks))
        for sentence in images_without_person(evaluation.masks):
            console.print(sentence)
    refined = " and ".join(first.refinements)
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in evaluation.seconds.items() if value)
    console.print(f"cost{f' with {refined}' if refined else ''}: {seconds}", style="dim")


def print_summary(summary: Summary, evaluation: Evaluation) -> None:
    """Print the mean of several runs of the same settings; `evaluation` is that of any of them."""
    console = plain_console()
    runs = len(summary.models)
    table = plain_table(f"mean of {runs} runs (%)", *next(iter(summary.metrics.values())))
    for protocol, metrics in summary.metrics.items():
        table.add_row(_short(protocol), *map(percent, metrics.values()))
    console.print()
    _print_title(console, evaluation)
    if evaluation.synthetic:
        console.print(SYNTHETIC)
    folds = find_layout(evaluation.layout).folds
    if folds > 1:
        tested = sorted(summary.folds)
        whole = tested == list(range(1, folds + 1))
        console.print(
            f"All {folds} folds, a model each: the protocol's result."
            if whole
            else f"Folds {', '.join(map(str, tested))}: the protocol wants a model for each of 1 to {folds}.",
            style="" if whole else "yellow",
        )
    console.print(table)


def print_one_fold(evaluation: Evaluation) -> None:
    """Warn that one fold is not the protocol's result, if the dataset has several."""
    folds = find_layout(evaluation.layout).folds
    if folds > 1:
        sentence = f"One fold of {folds}: the protocol's result is the mean over a model for each of them."
        plain_console().print(sentence, style="yellow")


def protocol_table(results: list[Result]) -> Table:
    """Make a row a setting: metrics in %, mean ± standard deviation over the trials; below it their 95 % intervals."""
    table = plain_table("setting (%)", *results[0].metrics, "chance")
    for result in results:
        table.add_row(_short(result.protocol), *map(percent, result.metrics.values()), f"{100 * result.chance:.1f}")
        intervals = [f"{100 * spread.low:.0f}-{100 * spread.high:.0f}" for spread in result.metrics.values()]
        table.add_row("  95 % interval", *intervals, style="dim")
    return table


def camera_table(pairs: list[CameraPair], name: Callable[[int], str] = str, width: int = 80) -> Table:
    """Make a table of R1, and mAP where there is room, by camera of the query and of the gallery.

    Of more cameras than fit into the width, it lists the ten worst pairs. `name` gives a camera's.
    """
    across = sorted({pair.gallery for pair in pairs})
    names = sum(len(f" in {name(camera)}") for camera in across) + max(len(f"of {name(p.query)}") for p in pairs)
    if len(across) > MOST_CAMERAS or names > width:
        table = plain_table(Column("the 10 worst of them", overflow="fold"), "R1", "mAP", "queries")
        for pair in sorted(pairs, key=lambda pair: pair.R1)[:10]:
            where = f"of camera {name(pair.query)} in {name(pair.gallery)}"
            table.add_row(where, f"{100 * pair.R1:.1f}", f"{100 * pair.mAP:.1f}", str(pair.valid))
        return table
    room = len(across) <= 6
    cell = {(p.query, p.gallery): f"{100 * p.R1:.0f}" + (f" {100 * p.mAP:.0f}" if room else "") for p in pairs}
    table = plain_table("R1 mAP" if room else "R1", *(f"in {name(camera)}" for camera in across))
    for query in sorted({pair.query for pair in pairs}):
        table.add_row(f"of {name(query)}", *(cell.get((query, gallery), "-") for gallery in across))
    return table


def mask_table(masks: dict[str, MaskResult]) -> Table:
    """Make a row a modality; means of the intersection over union."""
    table = plain_table("masks (IoU)", "predicted", "best constant mask", "images")
    for modality, result in masks.items():
        table.add_row(modality, f"{result.iou:.3f}", f"{result.constant_iou:.3f}", str(result.images))
    return table


def images_without_person(masks: dict[str, MaskResult]) -> list[str]:
    """Say for each modality how many true masks show nobody, if any, and what is predicted there."""
    return [
        f"{result.without_person:,} of {result.images + result.without_person:,} {modality} masks show nobody and are "
        f"left out; {100 * result.predicted_without:.1f} % of the pixels there are predicted as a person"
        for modality, result in masks.items()
        if result.without_person
    ]


def print_comparison(comparison: Comparison) -> None:
    """Print a row a run, the first being what the others are compared with."""
    console = plain_console()
    drawn = "all images in the gallery" if comparison.gallery == "all" else f"{comparison.gallery} galleries"
    console.print(f"\n{comparison.benchmark}, {comparison.protocol}, {drawn}", style="bold")
    if comparison.synthetic:
        console.print(SYNTHETIC)
    refined = {row.name: row.refinements for row in comparison.rows if row.refinements}
    for name, refinements in refined.items():
        console.print(f"{name} with {' and '.join(refinements)}", style="yellow")
    if 0 < len(refined) < len(comparison.rows) or len(set(map(tuple, refined.values()))) > 1:
        console.print("These runs were not refined alike: their difference is not one of models.", style="yellow")
    console.print(comparison_table(comparison))
    for model, done in comparison.unfinished.items():
        console.print(f"The training of {model} had not ended: {done}.", style="yellow")
    if comparison.unlike:
        console.print(f"Beside the method's name they differ in: {', '.join(comparison.unlike)}")
    asked = comparison.identities
    marked = "* excludes 0" if asked >= FEWEST else f"below {FEWEST} no difference is certain and none is starred"
    console.print(
        f"[low, high]: 95 % interval of the difference to the first run, over {asked} "
        f"{'identity' if asked == 1 else 'identities'}; {marked}. "
        "It does not hold what other training seeds would give.",
        style="dim",
    )


def comparison_table(comparison: Comparison) -> Table:
    """Make a row a run: metrics in %, differences to the first run in percentage points; those that all runs have."""
    rows = comparison.rows
    shown = [m for m in rows[0].metrics if m not in NOT_COMPARED and all(m in row.metrics for row in rows)]
    differing = [metric for metric in shown if metric != WITHOUT_DIFFERENCE]
    intervals = [f"Δ {metric} [low, high]" for metric in differing]
    table = plain_table(Column("run (%)", overflow="fold"), *shown, *intervals)
    for row in rows:
        metrics = [f"{100 * row.metrics[metric]:.1f}" for metric in shown]
        table.add_row(row.name, *metrics, *(difference_cell(row.differences.get(metric)) for metric in differing))
    return table


def percent(metric: Mean | Spread, digits: int = 1, sign: str = "±") -> str:
    """Write a metric in %, with its standard deviation where there are several runs or trials."""
    several = len(metric.runs if isinstance(metric, Mean) else metric.trials) > 1
    return f"{100 * metric.mean:.{digits}f}" + (f"{sign}{100 * metric.std:.1f}" if several else "")


def difference_cell(difference: Difference | None) -> str:
    """`+1.2 [+0.3, +2.1]*`; without the star there is a blank, so that numbers stand below each other."""
    if difference is None:
        return ""
    value, low, high = (f"{100 * x:+.1f}" for x in (difference.difference, difference.low, difference.high))
    return f"{value} [{low}, {high}]{'*' if difference.certain else ' '}"


def _print_title(console: Console, evaluation: Evaluation) -> None:
    kind = {"seeded": "seeded galleries", "official": "official galleries", "all": "all images in the gallery"}
    console.print(f"{evaluation.benchmark}, {kind[evaluation.protocols[0].gallery]}", style="bold")


def _fold(evaluation: Evaluation) -> str:
    folds = find_layout(evaluation.layout).folds
    return f", fold {evaluation.fold} of {folds}" if folds > 1 else ""


def _short(protocol: str) -> str:
    return protocol.replace("-search", "").replace("infrared", "IR").replace("visible", "VIS").replace(" to ", " → ")
