"""One file for each command of multipruner."""
