"""The lab: ways to search, tried on recorded learning curves instead of on GPUs."""
