"""What a process of augd may do and use: sandbox, parent, environment, limits, clock, paths."""
