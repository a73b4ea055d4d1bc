"""Train the network on the training part of the split."""
from __future__ import annotations
