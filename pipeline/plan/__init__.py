"""What a set of configurations needs, each once; what it will cost; what is wrong with it."""
