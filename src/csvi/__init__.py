"""csvi: visible-infrared person re-identification with co-segmentation."""

__version__ = "0.1.0"
