"""Optuna's side of a search: samplers and storage."""
