"""Astronomy used by several systems. Imports no torch and no system."""
