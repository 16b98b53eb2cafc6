"""What is proved of a file before it serves: golden samples, and whose rows are apart."""
