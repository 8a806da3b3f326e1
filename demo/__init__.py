"""The demonstration: made photos, a small network, a contact sheet. Not installed with augd."""
