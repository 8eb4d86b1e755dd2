"""The whole configuration: the schema put together, and Hydra's way to it."""
