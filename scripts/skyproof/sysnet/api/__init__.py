"""The public Python interface of SYSNet."""
