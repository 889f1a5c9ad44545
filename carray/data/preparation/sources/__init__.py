"""Where labelled images come from; `list_source` knows which reader a source needs."""

from carray.data.preparation.sources.detect import list_source
from carray.data.preparation.sources.listing import Listing, SourceImage

__all__ = ["Listing", "SourceImage", "list_source"]
