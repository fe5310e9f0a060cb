"""Networks as they are."""

import pytest

from csvi.model.trunk import build_trunk


@pytest.fixture(scope="module", autouse=True)
def real_trunks():
    """Every trunk is what it is, in the fixtures of a module too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("csvi.model.two_stream.build_trunk", build_trunk)
        yield
