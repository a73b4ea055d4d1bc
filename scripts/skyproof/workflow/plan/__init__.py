"""The tool `plan`: the jobs of a run, and their hours, memory and disk."""
