"""Faults of Redis: by its commands, settings and clients; those of its process are in `faults.process`."""
