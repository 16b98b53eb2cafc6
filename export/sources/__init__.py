"""What a network may come from: one file for each kind of model that somebody has."""
