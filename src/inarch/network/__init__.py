"""Source networks, their stages and cuts, grafts, and adapted networks."""
