"""Images read ahead of their use, in processes of their own."""

from .ahead import default_workers, loaded_batches
from .plan import planned_batches
from .pool import ReaderPool
from .sizes import sizes_ahead

__all__ = ["ReaderPool", "default_workers", "loaded_batches", "planned_batches", "sizes_ahead"]
