"""One trial, epoch by epoch; it knows no Ray."""
