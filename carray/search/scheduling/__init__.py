"""Ray Tune's side of a search: schedulers, the trainable, the driver."""
