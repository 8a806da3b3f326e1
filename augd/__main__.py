"""`python -m augd`: the command line."""

from augd.entry import main

if __name__ == "__main__":
    main()
