"""The one name that an installation adds to Python's path; `__main__` says why, and starts every command."""
