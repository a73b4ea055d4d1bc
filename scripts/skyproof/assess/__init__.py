"""Assessment of predictions: tests, controls, plots. Imports no torch and no system."""
