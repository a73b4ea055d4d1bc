"""Batched training of an ensemble of small networks, on a CPU or a GPU."""

from skyproof.learn.ensemble.group import EnsembleGroup
from skyproof.learn.ensemble.members import EnsembleMember, EnsembleSettings, TrainedMember
from skyproof.learn.ensemble.training import fit

__all__ = ["EnsembleGroup", "EnsembleMember", "EnsembleSettings", "TrainedMember", "fit"]
