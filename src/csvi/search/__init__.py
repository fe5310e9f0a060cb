"""Search: images to embeddings, embeddings into a gallery, and questions to it. Models are opened with `csvi.load`."""

from csvi.search.fill import Added, Choices, add_crops, gallery_for_crops
from csvi.search.gallery import Entry, Facts, Gallery, Hit, open_gallery
from csvi.search.query import Where, moment, search

__all__ = [
    "Added",
    "Choices",
    "Entry",
    "Facts",
    "Gallery",
    "Hit",
    "Where",
    "add_crops",
    "gallery_for_crops",
    "moment",
    "open_gallery",
    "search",
]
