"""Drills: a fleet under load, a fault that is done to it, and a ledger elsewhere that shows what came of it.

`make drills` runs them all; `make drills ARGS=--list` lists them. Each is a short function in one of the modules
processes, stopping, outages, links, failover, contention and soak: it starts a fleet, injects faults, settles and
states figures. What they share:

    servers       PostgreSQL servers to be killed, and programs from Debian's archive
    worker        the worker process           producer   the process that adds jobs, and takes some of it back
    ledger        what both write down, on a server that nothing is done to
    scene         one drill: its server, its processes, its faults, its figures
    invariants    what must hold, whatever happened: pure, from the ledger to a list of sentences
    report        the table, the page in docs/, the plots
"""
