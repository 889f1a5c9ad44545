"""Decoded images in memory-mapped stores, and the batches made of them."""
