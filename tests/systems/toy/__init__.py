"""A system of two small stages, to test the runner without science."""
