"""What a model in one state is worth: perplexity, accuracy, latency and memory. Decides nothing."""
