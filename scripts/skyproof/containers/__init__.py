"""Container images of the rules: their making, their record, the checks before their use."""
