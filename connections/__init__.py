"""The two logs of a connection, server's and client's, read: lines, series, figures. Pure."""
