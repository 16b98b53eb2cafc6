"""State kept between requests: of each sequence, by its key, never by its place."""
