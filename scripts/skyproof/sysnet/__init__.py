"""SYSNet: imaging systematics by ensembles of small networks on HEALPix tables."""
