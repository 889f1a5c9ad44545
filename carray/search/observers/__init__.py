"""What shows a running study: the console and Prometheus metrics."""
