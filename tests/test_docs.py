"""What the documentation names is there."""

import ast
import re
from pathlib import Path

from csvi.config import Config, departures
from csvi.methods.coseg import CoSeg

ROOT = Path(__file__).parents[1]


def test_every_departure_from_the_paper_has_a_row_with_its_reason():
    page = (ROOT / "docs" / "paper-to-code.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ") and "**not to the letter**" in line]
    settings = {
        name
        for _, _, _, names, reason, _ in rows
        for name in re.findall(r"`(?:method\.)?(\w+)`", names)
        if reason.strip()
    }
    assert {name.removeprefix("method.") for name in departures(Config(CoSeg.Settings()))} <= settings


def test_every_test_that_reliability_names_exists():
    file, named, functions = "", 0, {}
    for path, name in re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", (ROOT / "docs" / "reliability.md").read_text()):
        file = path or file  # one without a path is in the file named before
        if file not in functions:
            tree = ast.parse((ROOT / file).read_text())
            functions[file] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        if name:
            assert name in functions[file], f"{file}::{name}"
            named += 1
    assert named > 80


def test_the_readme_has_the_figures_of_the_ranking():
    ranked = {}
    for line in (ROOT / "docs" / "ranking.md").read_text().splitlines():
        if found := re.match(r"\| `([\w+]+)`.* \| \.\d+ \| ([\d.]+) ± [\d.]+ \| ([\d.]+) ± [\d.]+ \|", line):
            ranked[found[1]] = f"{found[2]} / {found[3]}"
    table = (ROOT / "README.md").read_text().partition("| `--method` | paper |")[2].partition("\n\n")[0]
    told = dict(re.findall(r"\n\| `([\w+]+)`[^|]*\|[^|]*\| ([\d.]+ / [\d.]+)", table))
    assert len(told) > 5
    assert told == {method: ranked[method] for method in told}
