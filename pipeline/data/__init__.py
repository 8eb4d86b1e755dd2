"""Text: rows of datasets and files, drawn and cut into windows of tokens."""
