"""Stamps: files, tables, writer, and overlaps on the sky."""
