"""How good a checkpoint is on a data folder.

measure (photo by photo) < figures (of any part of them) < intervals, calibration, attributes < evaluate.
"""
