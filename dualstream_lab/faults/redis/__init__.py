"""Faults of Redis: its process, settings and clients."""
