"""One trial, epoch by epoch, and the lanes that carry trials out."""
