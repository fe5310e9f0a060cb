"""Names that help and completion tell, and so without torch: of the methods and figures of the package."""

METHODS = {
    "baseline": "csvi.methods.baseline:Baseline",
    "select": "csvi.methods.select:Select",
    "segment": "csvi.methods.segment:Segment",
    "decode": "csvi.methods.decode:Decode",
    "coseg": "csvi.methods.coseg:CoSeg",
    "baseline+": "csvi.methods.baseline_plus:BaselinePlus",
    "coseg+": "csvi.methods.coseg_plus:CoSegPlus",
    "strong": "csvi.methods.strong:Strong",
    "agw": "csvi.methods.agw:AGW",
    "hc": "csvi.methods.hc:HC",
    "hctri": "csvi.methods.hctri:HcTri",
    "mtl": "csvi.methods.mtl:MTL",
    "caj": "csvi.methods.caj:CAJ",
    "caj+": "csvi.methods.caj:CAJPlus",
    "ddag": "csvi.methods.ddag:DDAG",
    "deen": "csvi.methods.deen:DEEN",
    "pmt": "csvi.methods.pmt:PMT",
    "mpanet": "csvi.methods.mpanet:MPANet",
}
"""Name → class."""
TABLE_3 = ("baseline", "select", "segment", "decode", "coseg")
"""The rows of the paper's Table 3, in its order."""
FIGURES = ("cosegmentation", "tsne", "heatmaps", "gradients", "leak")
"""The names of `csvi.analysis.make_figure.FIGURES`."""
