"""Image sets: ``load_data`` reads or makes a set, which an ``ImageData`` serves in batches."""

from orthocond.data.load import DATA_SETS, load_data
from orthocond.data.memory import ImageSet, InMemoryData
from orthocond.data.protocol import ImageData

__all__ = ["DATA_SETS", "ImageData", "ImageSet", "InMemoryData", "load_data"]
