"""How one version becomes live: chosen, loaded, proved, measured, warmed up."""
