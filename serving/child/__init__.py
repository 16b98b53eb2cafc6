"""Child processes that are asked over pipes: what may crash, hang or take the memory does so there, and becomes a sentence."""
