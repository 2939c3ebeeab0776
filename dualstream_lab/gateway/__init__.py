"""The gateway: what Redis announces and the store has, to WebSocket and SSE clients without a gap."""
