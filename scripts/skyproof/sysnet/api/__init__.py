"""The public Python interface of SYSNet: a regression in memory, and a trained network."""

from skyproof.sysnet.api.regression import Regression, regress
from skyproof.sysnet.api.trained_model import TrainedModel

__all__ = ["Regression", "TrainedModel", "regress"]
