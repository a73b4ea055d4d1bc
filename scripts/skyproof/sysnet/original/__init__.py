"""Files of the original SYSNet: checkpoints, predictions, log lines."""
