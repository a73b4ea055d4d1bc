"""Proof that products are what was made: checksums, comparison, publication. No torch."""
