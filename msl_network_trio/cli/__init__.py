"""The command line: a module per command, which imports what takes time only when the command runs."""
