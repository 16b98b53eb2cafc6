"""Ports: bytes in, bytes out."""
