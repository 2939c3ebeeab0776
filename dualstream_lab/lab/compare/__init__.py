"""Runs side by side: what really changed, as tables, a page, and a verdict for CI."""
