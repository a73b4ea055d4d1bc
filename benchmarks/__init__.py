"""Measurements of speed and memory, each against something else in the same run."""
