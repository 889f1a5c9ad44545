"""carray: distributed hyperparameter search and ensembling for fine-grained car classification."""

__version__ = "0.1.0"
