"""`csvi compare`, for the terminal: runs beside each other and their differences; fits 80 columns."""

from rich.table import Column, Table

from csvi.analysis.plain_table import plain_console, plain_table
from csvi.analysis.tables import SYNTHETIC
from csvi.runs.statistics import COMPARED, FEWEST, Comparison, Difference

DIFFERENCES = ("R1", "mAP")


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
    asked = comparison.identities
    marked = "* excludes 0" if asked >= FEWEST else f"below {FEWEST} no difference is certain and none is starred"
    console.print(
        f"[low, high]: 95 % interval of the difference to the first run, over {asked} "
        f"{'identity' if asked == 1 else 'identities'}; {marked}. "
        "It does not hold what other training seeds would give.",
        style="dim",
    )


def comparison_table(comparison: Comparison) -> Table:
    """Make the table: metrics in %, differences to the first run in percentage points."""
    intervals = [f"Δ {name} [low, high]" for name in DIFFERENCES]
    table = plain_table(Column("run (%)", overflow="fold"), *COMPARED, *intervals)
    for row in comparison.rows:
        metrics = [f"{100 * row.metrics[name]:.1f}" for name in COMPARED]
        differences = [difference_cell(row.differences[name]) if row.differences else "" for name in DIFFERENCES]
        table.add_row(row.name, *metrics, *differences)
    return table


def difference_cell(difference: Difference) -> str:
    """`+1.2 [+0.3, +2.1]*`; without the star there is a blank, so that numbers stand below each other."""
    value, low, high = (f"{100 * x:+.1f}" for x in (difference.difference, difference.low, difference.high))
    return f"{value} [{low}, {high}]{'*' if difference.certain else ' '}"
