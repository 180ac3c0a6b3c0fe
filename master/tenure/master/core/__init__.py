"""The pure core of one partition: commands in, events and effects out; no clock, no I/O."""
