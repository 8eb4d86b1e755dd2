"""The candidates of a step divided over processes."""
