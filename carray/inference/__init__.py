"""Model packages, and predictions with them."""
