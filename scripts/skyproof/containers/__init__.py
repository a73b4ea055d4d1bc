"""Container images of the rules: builds, recorded digests, checks before use."""
