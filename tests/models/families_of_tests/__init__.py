"""A folder of families like the project's own, for models that tests make."""
