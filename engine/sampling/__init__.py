"""The parts of choosing a token: shaping scores, truncating a distribution, drawing, reporting logprobs.

Promise: each row's outcome is a function of that row alone.  Never: state between calls, a global generator.
"""
