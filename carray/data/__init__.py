"""From labelled images to training batches: the manifest, its preparation, pixels."""
