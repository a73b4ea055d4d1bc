"""Networks of an ensemble: files, rows, predictions, losses."""
