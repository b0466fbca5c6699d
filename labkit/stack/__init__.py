"""The stack: which components there are, how they are had, and how they run on this machine."""
