"""What is removed, in which order, by which criterion: one file for each method."""
