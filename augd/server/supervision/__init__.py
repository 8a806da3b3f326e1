"""What programs that start processes share: arguments, exits, restarts, selections."""
