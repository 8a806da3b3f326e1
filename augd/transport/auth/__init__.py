"""Keys and who may connect: CURVE pairs, key files, known clients, and a self-test."""
