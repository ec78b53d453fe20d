"""Credential to Principal: who is asking, proven from our own records."""
