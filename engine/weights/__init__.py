"""Memory-safe readers of weight files; every byte is hashed before it is parsed."""
