"""What was measured, for people and for programs: tables, plots, a page, JSON and CSV."""
