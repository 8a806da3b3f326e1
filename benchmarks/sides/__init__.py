"""The competitors: one program each, that works only while a round runs."""
