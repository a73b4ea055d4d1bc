"""Container images of the rules: their making, their record, and the checks before they are used."""
