"""The model, event by event, in compiled kernels."""
