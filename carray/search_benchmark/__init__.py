"""A benchmark of search methods on recorded learning curves."""
