"""The fault proxy: toxics between a client and a broker."""
