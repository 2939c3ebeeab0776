"""Rows into statistics and pictures."""
