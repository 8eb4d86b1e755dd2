"""What is gone, what could go next, and the record of what went: no torch, no files but the record's."""
