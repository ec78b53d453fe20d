"""The verifier that travels inside an evidence pack: one file for a machine that has nothing but Python.

Promise: `verify.py` imports the standard library alone and is copied into a pack byte for byte.  It shares no line with
the rest of this package: two programs written apart must say the same about every pack.
"""
