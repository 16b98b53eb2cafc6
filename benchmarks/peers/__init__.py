"""lstm-serve beside the real Triton, MLServer and the least that gRPC itself costs; run by `make bench-peers`.

Machines are shared, so what is believed is the servers' own CPU time for a request and ratios within a round, in which all
servers had their turn. `__main__` has it in order.
"""
