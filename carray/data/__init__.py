"""From images and labels to pixels: the manifest, its splits, and the pixel store."""
