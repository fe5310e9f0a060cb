"""Networks as they are."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def as_they_are(real_trunks):
    """Every trunk is what it is, in the fixtures of a module too."""
    with real_trunks():
        yield
