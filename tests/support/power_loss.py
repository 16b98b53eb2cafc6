def tried(seed): return []
