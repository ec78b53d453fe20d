"""Operators: one plain-torch reference each, and beside it the kernel for a GPU."""
