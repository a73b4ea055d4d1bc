"""HEALPix maps and tables of other layouts."""
