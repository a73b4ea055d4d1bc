"""A system of two small stages, to test the frame without any science."""
