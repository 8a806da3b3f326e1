"""The rules of the protocol, each as a way to take it out.

Every function of these modules breaks the rule that its name says, by a monkeypatch: in the broker,
in the reader, or in the code around them. `test_rules` expects some schedule to notice each.
"""
