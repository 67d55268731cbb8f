"""`python -m vaultlab`."""

from vaultlab.cli import main

if __name__ == "__main__":
    main()
