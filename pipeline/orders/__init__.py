"""What the channels and heads of a block are put in order by: one file for each."""
