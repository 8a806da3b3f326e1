"""The relay (`augd produce`): it runs producers on this host for a daemon on another."""
