"""The command line: one small module for each command, imported fast and doing its imports when it runs."""
