"""Judging of predictions: tests, controls, plots. No torch, no system."""
