"""Names, datatypes, shapes and axes of a version's tensors."""
