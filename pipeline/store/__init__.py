"""What is on disk: finished results, leases, a run's folder, where a result comes from."""
