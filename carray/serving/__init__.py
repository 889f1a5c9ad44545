"""Models at an address: an HTTP interface, a page, and what both may be asked."""
