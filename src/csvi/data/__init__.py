"""Datasets on disk to batches; knows no method."""

from csvi.data.layout import LAYOUTS, Layout, find_layout, protocols_of, read_benchmark, recognise
from csvi.data.records import Benchmark, Counts, ImageRecord, Modality

__all__ = [
    "LAYOUTS",
    "Benchmark",
    "Counts",
    "ImageRecord",
    "Layout",
    "Modality",
    "find_layout",
    "protocols_of",
    "read_benchmark",
    "recognise",
]
