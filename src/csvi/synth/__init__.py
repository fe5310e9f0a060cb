"""The open synthetic benchmark: rendered people in two spectra, with exact masks, in the datasets' own layouts.

Who somebody is (`people`: body, wardrobe, materials) and how a camera sees them (`photo`: pose, cameras, places,
render) are drawn from separate generators; a layout (`sysu`, `regdb`, `llcm`, `folder`) plans which images there are;
`benchmark` writes them.
"""

import os

from csvi.paths import expanded
from csvi.synth.settings import SynthConfig

__all__ = ["SynthConfig", "write_benchmark", "write_sheet"]


# numba and the kernels are imported only when something is rendered
def write_benchmark(out: str | os.PathLike[str], config: SynthConfig) -> None:
    """Write the benchmark to the folder `out`; see `csvi.synth.benchmark.write_benchmark`."""
    from csvi.synth import benchmark

    benchmark.write_benchmark(expanded(out), config)


def write_sheet(file: str | os.PathLike[str], config: SynthConfig, people: int = 10) -> None:
    """Write a contact sheet, a PNG; see `csvi.synth.sheet.write_sheet`."""
    from csvi.synth import sheet

    sheet.write_sheet(expanded(file), config, people)
