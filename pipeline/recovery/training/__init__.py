"""Training: the loop, what it minimises, what it trains, and how it goes on after a kill."""
