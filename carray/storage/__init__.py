"""Folders at a URL: reading, writing and mirroring them, whatever keeps them."""
