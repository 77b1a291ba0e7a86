"""Measures speed, with a peer in the same run where that is installed: times alone say little of another machine."""
