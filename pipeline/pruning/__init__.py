"""The state of a model, units and candidates, steps and their record, the choice. No torch."""
