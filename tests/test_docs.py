"""What the documentation names is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_reliability_names_exists():
    file, named = "", 0
    for path, name in re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", (ROOT / "docs" / "reliability.md").read_text()):
        file = path or file  # one without a path is in the file named before
        tree = ast.parse((ROOT / file).read_text())
        if name:
            assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (
                f"{file}::{name}"
            )
            named += 1
    assert named > 80
