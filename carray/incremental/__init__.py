"""Adding a class to a trained model without training it from the start."""
