"""Text and pictures for people; they read results and compute nothing."""
