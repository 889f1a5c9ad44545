"""What fits on the cluster: nodes, lanes and GPU shares."""
