"""The dual publisher: Kafka is the truth, Redis Pub/Sub is the doorbell."""
