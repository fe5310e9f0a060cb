"""A function is compiled wherever csvi is installed."""

import pytest

from csvi.compiled import compiled


@pytest.mark.filterwarnings("error")
def test_without_a_folder_to_keep_the_code_in():
    nowhere = eval("lambda number: number + 1")  # of no file, so that numba has no place beside it either
    assert compiled(nowhere)(1) == 2
