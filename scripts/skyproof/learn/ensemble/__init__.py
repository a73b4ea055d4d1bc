"""Many small networks trained as one: a batched ensemble, on a CPU or a GPU."""

from skyproof.learn.ensemble.group import Group
from skyproof.learn.ensemble.members import Member, Settings, Trained
from skyproof.learn.ensemble.training import fit

__all__ = ["Group", "Member", "Settings", "Trained", "fit"]
