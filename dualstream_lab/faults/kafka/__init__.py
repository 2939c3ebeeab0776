"""Faults of Kafka: its processes, replicas and settings."""
