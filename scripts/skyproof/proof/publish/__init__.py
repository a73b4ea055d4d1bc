"""A verified run as a BagIt bag, an RO-Crate, and with a signed root."""
