"""The version of this product, the one place that says it: pyproject.toml reads it from here when it builds.

Asking `importlib.metadata` would fail in a checkout that nobody has installed, and say another one's version where two meet.
"""

VERSION = "0.1.0"
