"""Where a run's metrics go: a local file always, and Weights & Biases as its mirror."""
