"""`lstm-admin`: a client of the protocol's repository calls."""
