"""The methods that the paper compares itself with: its Tables 1, 2 and 4, every figure as it prints it.

Huang et al., Information Fusion 104, 2024. Its own rows, and those of Table 3, are in `published` of each method.
"""

from collections.abc import Mapping

from csvi.methods.method import Published

PAPER = "Huang et al., Information Fusion 104, 2024"

METRICS = ("R1", "R10", "R20", "mAP")
"""Columns of each setting."""

_TABLE_1 = """
eBDTR [27]      27.8  67.3  81.3  28.4   -     -     -     -      32.4  77.4  89.6  42.4   -     -     -     -
AlignGAN [31]   42.4  85.0  93.7  40.7   51.5  89.4  95.7  33.9   45.9  87.6  94.4  54.3   57.1  92.7  97.4  45.3
ABP [17]        51.56 75.65 81.69 32.50  -     -     -     -      -     -     -     -      -     -     -     -
HATML [32]      55.29 92.41 97.36 53.89  -     -     -     -      62.10 95.75 99.20 69.37  -     -     -     -
DG-VAE [33]     59.49 93.77 -     58.46  -     -     -     -      -     -     -     -      -     -     -     -
BDF [34]        51.05 87.85 94.43 49.63  -     -     -     -      55.93 91.55 96.95 63.38  -     -     -     -
GECNet [35]     53.37 89.86 95.66 51.83  -     -     -     -      60.60 94.29 98.10 62.89  -     -     -     -
NFS [9]         56.91 91.34 96.52 55.45  63.51 94.42 97.81 48.56  62.79 96.53 99.07 69.79  70.03 97.70 99.51 61.45
FMI [10]        60.02 94.18 98.14 58.80  -     -     -     -      66.05 96.59 99.38 72.98  -     -     -     -
PSE [36]        61.68 93.10 97.17 57.51  -     -     -     -      63.41 91.69 95.28 68.17  -     -     -     -
DTRM [37]       63.03 93.82 97.56 58.63  -     -     -     -      66.35 95.58 98.80 71.76  -     -     -     -
SPOT [38]       65.34 92.73 97.04 62.25  -     -     -     -      69.42 96.22 99.12 74.63  -     -     -     -
ML [8]          67.25 95.38 98.46 64.29  72.95 96.94 99.27 57.62  69.58 96.66 99.03 74.37  80.39 98.80 99.83 68.60
"""

_TABLE_2 = """
eBDTR [27]      31.8  56.1  66.8  33.2   34.21 58.74 68.64 32.49
HATML [32]      71.83 87.16 92.16 67.56  70.02 86.45 91.61 66.30
DG-VAE [33]     72.97 86.89 -     71.78  -     -     -     -
AMBT [39]       71.10 -     -     68.10  -     -     -     -
GECNet [35]     82.33 92.72 95.49 78.45  78.93 91.99 95.44 75.58
NFS [9]         80.54 91.96 95.07 72.10  77.95 90.45 93.62 69.79
FMI [10]        73.2  -     -     71.6   71.8  -     -     70.1
SPOT [38]       80.35 93.48 96.44 72.46  79.37 92.79 96.01 72.26
DTRM [37]       79.09 92.25 95.66 70.09  78.02 91.75 95.19 69.56
PSE [36]        91.05 97.16 98.57 83.28  89.30 96.41 98.16 81.46
ML [8]          89.91 96.57 98.33 85.64  88.34 96.16 97.98 84.06
"""

PARAMETERS = {"BDTR [40]": 48.2, "HC [24]": 58.6, "PSE [36]": 33.2, "ML [8]": 46.8}
"""Table 4: millions of parameters by method."""


def _by_protocol(table: str, *protocols: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Divide the rows of a table among its settings, in each of which only methods with a figure are kept."""
    found: dict[str, dict[str, tuple[str, ...]]] = {protocol: {} for protocol in protocols}
    for line in table.strip().splitlines():
        method, *figures = line.rsplit(maxsplit=len(METRICS) * len(protocols))
        for p, protocol in enumerate(protocols):
            of_setting = tuple(figures[len(METRICS) * p :][: len(METRICS)])
            if set(of_setting) != {"-"}:
                found[protocol][method] = of_setting
    return found


COMPARED: Mapping[str, Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "sysu": _by_protocol(
        _TABLE_1,
        "all-search single-shot",
        "all-search multi-shot",
        "indoor-search single-shot",
        "indoor-search multi-shot",
    ),
    "regdb": _by_protocol(_TABLE_2, "visible to thermal", "thermal to visible"),
}
"""Layout → protocol → method → its figures in %, in the order of `METRICS`; - where the paper has none."""


def published_as(name: str) -> Published:
    """The figures that the paper gives of a method it compares itself with, such as `PSE [36]`."""
    metrics = {
        layout: {
            protocol: {metric: float(value) for metric, value in zip(METRICS, of[name], strict=True) if value != "-"}
            for protocol, of in protocols.items()
            if name in of
        }
        for layout, protocols in COMPARED.items()
    }
    return Published(f"{name} in Tables 1 and 2 of {PAPER}", metrics)
