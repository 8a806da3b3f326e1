"""What a producer may not do: the system calls, the filter made of them, and putting it on."""
