"""``python -m holdfast.cli``: what ``up`` starts its brokers with."""

from holdfast.cli import main

if __name__ == "__main__":
    main()
