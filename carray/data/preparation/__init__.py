"""From labelled images to a manifest: sources, scans, duplicates, splits."""
