"""Simulated bricks: population, depth, measurement."""
