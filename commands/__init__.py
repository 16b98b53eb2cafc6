"""What the command lines have in common, out of the standard library alone; every package of ours may import it."""
