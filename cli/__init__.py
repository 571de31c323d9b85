"""Command line of orthocond. Each command has one module, which parses, calls and prints."""
