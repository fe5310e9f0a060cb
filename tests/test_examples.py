"""The notebooks of examples/: as they are kept, and executed anew."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 200_000
MACHINE = re.compile(r"/(tmp|home|root|work|usr|Users|opt|var)/|[A-Z]:\\\\|localhost")
"""What tells on whose machine a notebook was executed."""


def outputs_of(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    return [(cell, cell["outputs"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_with_its_outputs(notebook):
    cells = outputs_of(notebook)
    assert [cell["execution_count"] for cell, _ in cells] == list(range(1, len(cells) + 1))  # once, from top to bottom
    outputs = [output for _, of_cell in cells for output in of_cell]
    assert len(outputs) >= 5
    assert [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"] == []
    assert not MACHINE.search(json.dumps(outputs))
    assert notebook.stat().st_size < MOST_BYTES


def test_the_index_names_every_notebook():
    text = (FOLDER / "README.md").read_text()
    assert sorted(re.findall(r"\((\w+\.ipynb)\)", text)) == [file.name for file in NOTEBOOKS]


@pytest.mark.long
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where it writes
    nbclient.execute(nbformat.read(notebook, as_version=4), timeout=600, kernel_name="python3")
