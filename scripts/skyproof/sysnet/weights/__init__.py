"""From predictions to weights: combination and shrinkage."""
