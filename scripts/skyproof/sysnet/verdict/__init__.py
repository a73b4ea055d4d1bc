"""Inputs, tests, rule and figures of the evaluation."""
