"""The machine: GPUs, the interpreter's lock, memory."""
