"""Inputs, rule and figures of the evaluation."""
