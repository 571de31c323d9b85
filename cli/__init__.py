"""The command line of orthocond: one module per command, each parses, calls and prints."""
