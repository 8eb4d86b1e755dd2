"""Plans, the store of finished results, leases, and the executors that run stages."""
