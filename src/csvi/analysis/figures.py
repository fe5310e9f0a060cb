"""The style of figures under the name that `csvi.analysis.ablation` imports; all else takes it from `canvas`."""

from csvi.analysis.canvas import STYLE

__all__ = ["STYLE"]
