"""What was done to a server, how often, and what came, as a table of docs/track-record.md."""
MARK = "<!-- what follows is written by: make chaos -->"
def render(*a): return repr(a)
def replace(*a): pass
