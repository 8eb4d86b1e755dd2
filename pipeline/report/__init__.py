"""What a person reads of a run: a table, a picture and a page. Knows plain data only."""
