"""A trace of a shop's busy half hour, and the settings that keep its mail quick."""
