"""Where models that MLflow has held since before 0.2 import `load_model` from."""

from carray.inference.predictor import load_model

__all__ = ["load_model"]
