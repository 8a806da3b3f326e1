"""`python -m augd`: the command line."""

from augd.process.interpreter import leave_working_directory

if __name__ == "__main__":
    leave_working_directory(is_module=True)
    from augd.cli.entry import main

    main()
