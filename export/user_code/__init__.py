"""A user's own code, which runs in a child process that sees the user's path and none of ours."""
