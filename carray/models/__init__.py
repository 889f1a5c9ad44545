"""Backbones, heads, and the classifiers made of both."""
