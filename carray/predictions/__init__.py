"""What trials predicted for held-out images; numpy only, no torch."""
