"""Obiwan: can a network tell injected galaxies from real ones?"""
