"""Closed forms: the capacity of a deployment."""
