"""lstm-serve beside the real Triton, MLServer and the least that its edge and gRPC itself cost; run by `make bench-peers`.

Machines are shared, so what is believed is the servers' own CPU time for a request and ratios within a round, in which all
servers had their turn. `__main__` has it in order.
"""
