"""What lies on disk, and what the operator wrote there."""
