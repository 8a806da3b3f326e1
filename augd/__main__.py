"""`python -m augd`: the command line."""

from augd.cli import main

if __name__ == "__main__":
    main()
