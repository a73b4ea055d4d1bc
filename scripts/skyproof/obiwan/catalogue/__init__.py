"""Selection and classes of catalogued sources."""
