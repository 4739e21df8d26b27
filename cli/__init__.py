"""The program `logfeed`: its commands, and the composition of the parts into roles."""
