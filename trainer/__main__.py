"""`python -m augd.torch`, or `trainer`: the command line."""

if __name__ == "__main__":
    from augd.cli.entry import train

    train(is_module=True)
