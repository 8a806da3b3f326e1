"""The messages of the protocol, their encoding, and the layouts that they name. Pure."""
