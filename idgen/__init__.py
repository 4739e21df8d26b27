"""Snowflake ids, as a pure function of a worker number and the time that is passed in."""
