"""Where labelled images come from; `list_source` knows which reader a source needs."""

from carray.data.sources.detect import list_source
from carray.data.sources.listing import Listing, Sighting

__all__ = ["Listing", "Sighting", "list_source"]
