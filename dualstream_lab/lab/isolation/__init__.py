"""The isolation proof: Redis trouble never fails or slows a publish."""
