"""Recorder of the MRTC suite: takes recording jobs, pulls tracks over relays, writes files that play as they grow."""
