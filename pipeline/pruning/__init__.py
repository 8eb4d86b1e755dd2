"""What is gone, what could go next, the record of what went, and the search. No torch."""
