"""Reduction of single exposures to bricks."""
