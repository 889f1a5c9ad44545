"""Pages and pictures for people, made from records alone; no torch."""
