"""What a trained model or a finished study teaches: comparisons, errors, ablations."""
