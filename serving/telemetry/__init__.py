"""Stamps, counts and the log."""
