"""Precision, CUDA graphs and memory of a training step."""
