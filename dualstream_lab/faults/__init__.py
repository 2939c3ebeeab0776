"""The failure lab's faults: each proves that it bites, and that it is over."""
