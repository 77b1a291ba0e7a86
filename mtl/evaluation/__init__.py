"""How good a checkpoint is on a data folder.

measure (photo by photo) < figures (of any part of them) < intervals, calibration, attributes < evaluate; and, of what
that returns, one HTML file: pictures (the worst photos) < markup (tables, diagrams) < page.
"""
