"""The appliance's own anchoring: every sink that the operator configured gets each new head, and the log hears of it.

Promise: a sink that fails or hangs stops neither the log, another sink, nor a stop beyond its own deadline; a record is
left only when a sink begins to fail or recovers, so that an idle appliance does not grow its log by anchoring.

    places.py    settings -> sinks
    keeper.py    one sink's attempts and what came of them
    watch.py     what began to fail or recovered, into the log
"""
