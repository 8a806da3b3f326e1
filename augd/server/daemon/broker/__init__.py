"""The broker: events in, actions out. Pure, knows no clock."""
