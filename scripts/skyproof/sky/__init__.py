"""Astronomy that several systems share. No torch, no system."""
