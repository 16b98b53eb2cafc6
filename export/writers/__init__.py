"""What a network may become: one file for each format, which writes it from the canonical weights."""
