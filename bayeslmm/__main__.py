"""`python -m bayeslmm`: the command line."""

from bayeslmm.cli import main

if __name__ == "__main__":
    main()
