"""The planner: samplers act on a frame of rows, and a plan comes out."""
