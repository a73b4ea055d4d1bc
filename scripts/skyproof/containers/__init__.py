"""Container images of the rules: build, record, checks before use."""
